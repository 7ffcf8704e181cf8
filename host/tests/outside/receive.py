"""A receiver of webhooks that is not ours: it has a certificate, and looks at signatures as Standard Webhooks says.

usage: receive.py CHAIN KEY SECRET
Prints its port, and for each request its id, who it says it is from, and whether it is signed.
"""

import base64
import hashlib
import hmac
import http.server
import ssl
import sys
import time

chain, key, secret = sys.argv[1:]
signing_key = base64.b64decode(secret.removeprefix("whsec_"))


def is_signed(headers, body):
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(signing_key, signed, hashlib.sha256).digest()).decode()
    is_now = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return is_now and f"v1,{expected}" in headers["webhook-signature"].split(" ")


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        said = "signed" if is_signed(self.headers, body) else "not signed"
        print(self.headers["webhook-id"], self.headers["authorization"], said, flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(chain, key)
# Where it is, before each connection begins its own thread: a stranger who does not trust it must not hold up the others.
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_port, flush=True)
server.serve_forever()
