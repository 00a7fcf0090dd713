# SeaweedFS as an S3 store: master, volume server, filer and S3 gateway in one process. Sourced by up.
# shellcheck shell=bash

# One variable moves them all: the inner ports keep their distance to the S3 port, gRPC is 10000 above each.
s3_layout() { master=$((STACK_S3_PORT + 1000)) volume=$((STACK_S3_PORT - 253)) filer=$((STACK_S3_PORT + 555)); }

s3_ports() {
  local master volume filer port
  s3_layout
  for port in "$STACK_S3_PORT" "$master" "$volume" "$filer"; do
    port_free 127.0.0.1 "$port" STACK_S3_PORT
    port_free 127.0.0.1 $((port + 10000)) STACK_S3_PORT
  done
}

start_s3() {
  local home=$STACK_DIR/s3 master volume filer
  s3_layout
  mkdir -p "$home/data"
  cat >"$home/s3.json" <<JSON
{"identities": [{
  "name": "dwell",
  "credentials": [{"accessKey": "$S3_ACCESS_KEY", "secretKey": "$S3_SECRET_KEY"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]
}]}
JSON
  # Without -ip and -ip.bind it listens on the outer address. A bucket must be made before it is used, as on S3 itself.
  spawn s3 "$SEAWEEDFS_HOME/bin/weed" -logtostderr server "$(marker s3)" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -master.port="$master" -master.volumeSizeLimitMB=256 -master.telemetry=false -master.electionTimeout=1s \
    -volume.port="$volume" -volume.max=100 -volume.preStopSeconds=0 -filer -filer.port="$filer" \
    -s3 -s3.port="$STACK_S3_PORT" -s3.port.grpc=$((STACK_S3_PORT + 10000)) -s3.port.iceberg=0 -s3.port.lance=0 \
    -s3.config="$home/s3.json" -s3.autoCreateBucket=false
}

# Healthy is not ready: after a crash the gateway answers before the volumes are back. So an object is written and read.
s3_takes_objects() {
  probe s3-make "$STACK_S3_PORT" "$S3_REGION" "$S3_ACCESS_KEY" "$S3_SECRET_KEY" "$S3_BUCKET"
}
