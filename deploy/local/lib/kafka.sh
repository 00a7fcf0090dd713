# Apache Kafka: one node that is broker and controller. Sourced by up.
# shellcheck shell=bash

kafka_ports() {
  port_free 127.0.0.1 "$STACK_KAFKA_PORT" STACK_KAFKA_PORT
  port_free 127.0.0.1 $((STACK_KAFKA_PORT + 1)) STACK_KAFKA_PORT
}

start_kafka() {
  local home=$STACK_DIR/kafka controller=$((STACK_KAFKA_PORT + 1))
  mkdir -p "$home/data"
  {
    cat "$LOCAL/config/kafka.properties"
    echo "log.dirs=$home/data"
    echo "listeners=PLAINTEXT://127.0.0.1:$STACK_KAFKA_PORT,CONTROLLER://127.0.0.1:$controller"
    echo "controller.quorum.voters=1@127.0.0.1:$controller"
  } >"$home/server.properties"

  if [ ! -s "$home/data/meta.properties" ]; then
    [ -s "$home/cluster.id" ] || probe cluster-id >"$home/cluster.id"
    "$JAVA" -Xmx128m -XX:TieredStopAtLevel=1 -cp "$KAFKA_HOME/lib/*" kafka.tools.StorageTool format --ignore-formatted \
      -t "$(cat "$home/cluster.id")" -c "$home/server.properties" >"$home/format.log" 2>&1 \
      || die "could not format Kafka's folder: $(tail -n 3 "$home/format.log")"
  fi

  spawn kafka "$JAVA" "$(marker kafka)" -Xms256m -Xmx512m -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:+ExitOnOutOfMemoryError \
    -Djava.awt.headless=true -Dlog4j2.configurationFile="$LOCAL/config/kafka-log4j2.properties" -Dkafka.logs.dir="$home" \
    -cp "$KAFKA_HOME/lib/*" kafka.Kafka "$home/server.properties"
}
