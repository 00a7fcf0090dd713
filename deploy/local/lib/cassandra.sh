# Apache Cassandra: nodes on loopback addresses, each with its folder. Sourced by up and nodetool.
# shellcheck shell=bash

cassandra_jmx_port() { echo $((STACK_CASSANDRA_JMX_PORT + ($1 - 1) * 100)); }

# cassandra_ports NODE
cassandra_ports() {
  local address=$STACK_CASSANDRA_NET.$1
  port_free "$address" 7000 STACK_CASSANDRA_NET
  port_free "$address" "$STACK_CASSANDRA_PORT" STACK_CASSANDRA_PORT
  port_free 127.0.0.1 "$(cassandra_jmx_port "$1")" STACK_CASSANDRA_JMX_PORT
}

# start_cassandra NODE
start_cassandra() {
  local node=$1 home=$STACK_DIR/cassandra-$1 address=$STACK_CASSANDRA_NET.$1 heap=4g jmx
  jmx=$(cassandra_jmx_port "$node")
  if ((STACK_CASSANDRA_NODES > 1)); then heap=512m; fi
  mkdir -p "$home/conf" "$home/tmp"
  {
    cat "$LOCAL/config/cassandra.yaml"
    echo "listen_address: $address"
    echo "rpc_address: $address"
    echo "native_transport_port: $STACK_CASSANDRA_PORT"
    echo "seed_provider:"
    echo "  - class_name: org.apache.cassandra.locator.SimpleSeedProvider"
    echo "    parameters: [{seeds: \"$STACK_CASSANDRA_NET.1:7000\"}]"
  } >"$home/conf/cassandra.yaml"
  cp "$LOCAL/config/cassandra-logback.xml" "$home/conf/logback.xml"

  # skip_wait_for_gossip_to_settle, ring_delay_ms, superuser_setup_delay_ms: waits that only large rings need.
  # The temporary folder must allow execution, as JNA loads a library from it; so it is not left to the machine.
  spawn "cassandra-$node" "$JAVA" "$(marker "cassandra-$node")" "@$LOCAL/config/cassandra-jvm17.args" \
    -Xms512m -Xmx$heap -Xss256k -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError -Djava.net.preferIPv4Stack=true \
    -javaagent:"$(echo "$CASSANDRA_HOME"/lib/jamm-*.jar)" -Djava.io.tmpdir="$home/tmp" \
    -Dcassandra.config="file://$home/conf/cassandra.yaml" -Dlogback.configurationFile="$home/conf/logback.xml" \
    -Dcassandra.storagedir="$home" -Dcassandra.logdir="$home/log" -Dcassandra-foreground=yes -Dcassandra.libjemalloc=- \
    -Dcassandra.jmx.local.port="$jmx" -Dcom.sun.management.jmxremote.authenticate=false \
    -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.ring_delay_ms=5000 -Dcassandra.superuser_setup_delay_ms=0 \
    -Dchronicle.analytics.disable=true -cp "$home/conf:$CASSANDRA_HOME/lib/*" org.apache.cassandra.service.CassandraDaemon
}

# nodetool NODE ARGUMENTS…
nodetool() {
  local node=$1
  shift
  "$JAVA" "@$LOCAL/config/cassandra-jvm17.args" -Xmx128m -XX:TieredStopAtLevel=1 \
    -Dcassandra.config="file://$STACK_DIR/cassandra-$node/conf/cassandra.yaml" -Dcassandra.storagedir="$STACK_DIR/cassandra-$node" \
    -Dlogback.configurationFile="$LOCAL/config/nodetool-logback.xml" \
    -cp "$STACK_DIR/cassandra-$node/conf:$CASSANDRA_HOME/lib/*" org.apache.cassandra.tools.NodeTool \
    -p "$(cassandra_jmx_port "$node")" "$@"
}

# Does every running node see every running node Up and Normal (UN)? Until then QUORUM may be refused.
ring_agrees() {
  local viewer seen other
  for ((viewer = 1; viewer <= STACK_CASSANDRA_NODES; viewer++)); do
    running "cassandra-$viewer" >/dev/null || continue
    seen=$(nodetool "$viewer" status) || return 1
    for ((other = 1; other <= STACK_CASSANDRA_NODES; other++)); do
      running "cassandra-$other" >/dev/null || continue
      grep -q "^UN  *$STACK_CASSANDRA_NET.$other " <<<"$seen" || return 1
    done
  done
}
