"""Asks a server something in its own protocol, with the standard library only. Exit code 0: it answered well.

    probe.py kafka HOST PORT                              metadata names a broker
    probe.py cassandra HOST PORT                          a SELECT answers
    probe.py s3 PORT REGION KEY SECRET BUCKET             healthy, and the bucket is there
    probe.py s3-make PORT REGION KEY SECRET BUCKET        makes the bucket; an object can be written, read and deleted
    probe.py port-free HOST PORT                          nobody listens there
    probe.py cluster-id                                   prints a new id for a Kafka cluster
"""

import base64
import datetime
import hashlib
import hmac
import socket
import struct
import sys
import urllib.error
import urllib.request
import uuid

TIMEOUT_S = 5


def receive(connection, size):
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("closed by the server")
        data += part
    return data


def kafka(host, port):
    """Metadata request, version 1, for no topics; the answer lists the brokers that are not fenced."""
    client = b"dwell-probe"
    request = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", receive(connection, 4))
        _correlation, brokers = struct.unpack(">ii", receive(connection, size)[:8])
    return brokers >= 1


def cassandra(host, port):
    """STARTUP, then QUERY, in version 4 of the native protocol."""

    def ask(connection, opcode, body):
        connection.sendall(struct.pack(">BBhBi", 4, 0, 0, opcode, len(body)) + body)
        _version, _flags, _stream, answer, size = struct.unpack(">BBhBi", receive(connection, 9))
        receive(connection, size)
        return answer

    def text(value):
        return struct.pack(">H", len(value)) + value

    startup, ready, query, result, one = 0x01, 0x02, 0x07, 0x08, 0x0001
    cql = b"SELECT release_version FROM system.local"
    with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
        if ask(connection, startup, struct.pack(">H", 1) + text(b"CQL_VERSION") + text(b"3.0.0")) != ready:
            return False
        return ask(connection, query, struct.pack(">i", len(cql)) + cql + struct.pack(">HB", one, 0)) == result


class S3:
    """Requests to one bucket, signed with AWS Signature Version 4."""

    def __init__(self, port, region, key, secret, bucket):
        self.host, self.region, self.key, self.secret, self.bucket = f"127.0.0.1:{port}", region, key, secret, bucket

    def call(self, method, name="", body=b""):
        """Status and body of the answer."""
        path = f"/{self.bucket}" + (f"/{name}" if name else "")
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{now[:8]}/{self.region}/s3/aws4_request"
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": self.host, "x-amz-content-sha256": digest, "x-amz-date": now}
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{digest}"
        to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = f"AWS4{self.secret}".encode()
        for part in (*scope.split("/"), to_sign):
            signature = hmac.new(signature, part.encode(), hashlib.sha256).digest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={names}, Signature={signature.hex()}"
        )
        data = body if method == "PUT" else None
        request = urllib.request.Request(f"http://{self.host}{path}", data=data, headers=headers, method=method)
        try:
            with DIRECT.open(request, timeout=TIMEOUT_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, b""


# A proxy in the environment is not meant for loopback.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def s3(port, *rest):
    with DIRECT.open(f"http://127.0.0.1:{port}/healthz", timeout=TIMEOUT_S) as answer:
        healthy = answer.status == 200
    return healthy and S3(port, *rest).call("HEAD")[0] == 200


def s3_make(port, *rest):
    store, name, body = S3(port, *rest), f"probe-{uuid.uuid4()}", b"written and read back"
    made = 200, 409  # new, or there already
    return (
        store.call("PUT")[0] in made
        and s3(port, *rest)
        and store.call("PUT", name, body)[0] == 200
        and store.call("GET", name) == (200, body)
        and store.call("DELETE", name)[0] in (200, 204)
    )


def port_free(host, port):
    with socket.socket() as listener:
        # Connections of a server that has just ended linger; only a listener is in the way.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, int(port)))
        except OSError:
            return False
    return True


def cluster_id():
    """22 characters of URL-safe base64; one that begins with a dash would look like an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes)[:22].decode()).startswith("-"):
        pass
    print(text)
    return True


COMMANDS = {
    "kafka": kafka,
    "cassandra": cassandra,
    "s3": s3,
    "s3-make": s3_make,
    "port-free": port_free,
    "cluster-id": cluster_id,
}

if __name__ == "__main__":
    try:
        sys.exit(0 if COMMANDS[sys.argv[1]](*sys.argv[2:]) else 1)
    except (OSError, struct.error) as error:
        sys.exit(f"{sys.argv[1]}: {error}")
