"""Readers over each transport, built on clients that are not ours: http.client, websockets, grpcio.

Each yields `(event, notice, cursor)`: one of the first two is None, and the cursor is where a reader would go on from
after this message (None while that is not certain).
"""

from __future__ import annotations

import http.client
import json
import socket
from urllib.parse import quote

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from websockets.sync.client import connect

TIMEOUT_S = 20


def parameters(topics, **options) -> str:
    """A query string; topics stay readable."""
    pairs = [("topics", ",".join(topics)), *((k, str(v)) for k, v in options.items() if v is not None)]
    return "&".join(f"{key}={quote(value, safe='/*,')}" for key, value in pairs)


def get(address: str, path: str, method: str = "GET", accept: str = "application/json"):
    """The status, the content type and the JSON of one answer."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S + 30)
    try:
        connection.request(method, path, headers={"accept": accept})
        response = connection.getresponse()
        body = response.read()
        return response.status, response.getheader("content-type", ""), json.loads(body) if body else None
    finally:
        connection.close()


class Cursor:
    """The contract's cursor of a duplex session: the greatest seq of the updates, or the cursor of a notice. Until
    `subscribed` closes the backfill it stays where it was."""

    def __init__(self):
        self.epoch, self.seq, self.joined = None, 0, False

    def take(self, event, notice) -> str | None:
        if notice is not None:
            if notice["op"] == "subscribed":
                self.joined = True
            if notice.get("cursor"):
                self.epoch, seq = notice["cursor"].rsplit("-", 1)
                self.seq = max(self.seq, int(seq)) if self.joined else self.seq
        elif event["kind"] != "snapshot":
            self.seq = max(self.seq, event["seq"])
        return f"{self.epoch}-{self.seq}" if self.joined else None


def small_socket(address: str) -> socket.socket:
    """A connection that takes little in advance, so that its reader's slowness is felt soon."""
    host, port = address.rsplit(":", 1)
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    small.settimeout(TIMEOUT_S)
    small.connect((host, int(port)))
    return small


def open_websocket(address: str, **options):
    """A session without subscriptions. A proxy of the caller's environment must not come between.

    Like browsers, this client offers permessage-deflate, and compresses whatever it sends.
    """
    options = {"subprotocols": ["ticker.v1.json"]} | options
    return connect(f"ws://{address}/v1/ws", open_timeout=TIMEOUT_S, max_size=2**20, proxy=None, **options)


def record_compressed(socket) -> list[tuple[int, int]]:
    """A list that grows with each compressed frame that comes: its bytes on the wire, and inflated."""
    (deflate,) = socket.protocol.extensions
    inflate, seen = deflate.decode, []

    def decode(frame, *, max_size=None):
        plain = inflate(frame, max_size=max_size)
        if frame.rsv1:
            seen.append((len(frame.data), len(plain.data)))
        return plain

    deflate.decode = decode
    return seen


def websocket(address: str, topics, cursor=None, sock=None, **options):
    """Over a WebSocket, by a `subscribe` message."""
    place = Cursor()
    # With a socket of the caller's own the library, too, takes little in advance.
    how = {"sock": sock, "max_queue": 2} if sock else {}
    with open_websocket(address, **how) as session:
        assert session.subprotocol == "ticker.v1.json", session.subprotocol
        request = {"op": "subscribe", "id": 1, "topics": list(topics), **options}
        if cursor:
            request["from"] = cursor
        session.send(json.dumps(request))
        while True:
            message = json.loads(session.recv(timeout=TIMEOUT_S))
            event, notice = (None, message) if "op" in message else (message, None)
            yield event, notice, place.take(event, notice)


def sse(address: str, topics, cursor=None, last_event_id=None, sock=None, **options):
    """Server-Sent Events, read as the specification says."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    connection.sock = sock
    headers = {"accept": "text/event-stream"}
    if last_event_id:
        headers["last-event-id"] = last_event_id
    try:
        connection.request("GET", "/v1/stream?" + parameters(topics, **{"from": cursor}, **options), headers=headers)
        response = connection.getresponse()
        assert response.status == 200, (response.status, response.read())
        assert response.getheader("content-type").startswith("text/event-stream"), response.getheader("content-type")
        kind, data, last_id = "message", [], None
        while line := response.readline():
            line = line.decode().rstrip("\r\n")
            if line:
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if field == "data":
                    data.append(value)
                elif field == "event":
                    kind = value
                elif field == "id":
                    last_id = value
            else:
                if data:
                    message = json.loads("\n".join(data))
                    assert (kind == "notice") == ("op" in message), (kind, message)
                    yield (None, message, last_id) if kind == "notice" else (message, None, last_id)
                kind, data = "message", []
    finally:
        connection.close()


def ndjson(address: str, topics, **options):
    """One object a line."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    try:
        connection.request(
            "GET", "/v1/stream?" + parameters(topics, **options), headers={"accept": "application/x-ndjson"}
        )
        response = connection.getresponse()
        assert response.status == 200, (response.status, response.read())
        while line := response.readline():
            message = json.loads(line)
            yield (None, message, None) if "op" in message else (message, None, None)
    finally:
        connection.close()


def poll(address: str, topics, cursor=None, wait=25, **options):
    """Long polling: the cursor is that of the whole answer, so it comes with the answer's last message."""
    while True:
        wait_now = wait if cursor else None
        status, _, answer = get(address, "/v1/poll?" + parameters(topics, cursor=cursor, wait=wait_now, **options))
        assert status == 200, (status, answer)
        cursor = answer["cursor"]
        messages = [(e, None) for e in answer["events"]] + [(None, n) for n in answer["notices"]]
        for i, (event, notice) in enumerate(messages):
            yield event, notice, cursor if i == len(messages) - 1 else None
        if not messages:
            yield None, {"op": "nothing"}, cursor


class Grpc:
    """A gRPC client that knows nothing but the address: the services are read by reflection."""

    def __init__(self, address: str):
        self.channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
        grpc.channel_ready_future(self.channel).result(TIMEOUT_S)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def services(self):
        return list(self.database.get_services())

    def call(self, service: str, method: str, **request):
        """Calls a unary or server-streaming method."""
        found = self.pool.FindServiceByName(service).methods_by_name[method]
        ask = message_factory.GetMessageClass(found.input_type)
        answer = message_factory.GetMessageClass(found.output_type)
        kind = self.channel.unary_stream if found.server_streaming else self.channel.unary_unary
        stub = kind(
            f"/{service}/{method}", request_serializer=ask.SerializeToString, response_deserializer=answer.FromString
        )
        return stub(json_format.ParseDict(request, ask()), timeout=None if found.server_streaming else TIMEOUT_S)


def get_message(address: str, name: str):
    """The class of a message of `ticker.v1`."""
    with Grpc(address) as client:
        return message_factory.GetMessageClass(client.pool.FindMessageTypeByName(f"ticker.v1.{name}"))


def grpc_stream(address: str, topics, cursor=None, **options):
    """Over gRPC `Subscribe`; events in the form of the JSON ones, as far as these tests look."""
    place = Cursor()
    with Grpc(address) as client:
        request = {"topics": list(topics), **options}
        if cursor:
            request["from"] = cursor
        call = client.call("ticker.v1.MarketData", "Subscribe", **request)
        try:
            for answer in call:
                name = answer.WhichOneof("message")
                if name == "event":
                    event, notice = grpc_event(answer.event), None
                else:
                    event, notice = None, {"op": name, **json_format.MessageToDict(getattr(answer, name))}
                yield event, notice, place.take(event, notice)
        finally:
            call.cancel()


def grpc_event(event) -> dict:
    kind = event.DESCRIPTOR.fields_by_name["kind"].enum_type.values_by_number[event.kind].name
    plain = {"topic": event.topic, "seq": event.seq, "prev": event.prev, "kind": kind.removeprefix("KIND_").lower()}
    data = event.WhichOneof("data")
    if data == "trade":
        plain |= {"price": event.trade.price, "size": event.trade.size, "trade_id": event.trade.trade_id}
    elif data == "quote":
        plain |= {"bid": event.quote.bid, "ask": event.quote.ask}
    return plain
