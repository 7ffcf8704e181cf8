"""ClickHouse, as far as its HTTP interface is asked by a sink: its own parser, tables and deduplication, from the engine that is a library.

usage: clickhouse.py DIRECTORY USER PASSWORD
Prints its port. An insert that ends in a row with the header `x-drop` is executed and not answered.
Told on standard input, a number, how many of the next inserts are executed without an answer.
"""

import http.server
import re
import sys
import threading
import urllib.parse

from chdb import session

directory, user, password = sys.argv[1:]
engine = session.Session(directory)
lock = threading.Lock()
silent = 0


def told():
    global silent
    for line in sys.stdin:
        silent = int(line)
        print("silent", flush=True)


class Interface(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global silent
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode("utf-8", "surrogateescape")
        parameters = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        if (self.headers["x-clickhouse-user"], self.headers["x-clickhouse-key"]) != (user, password):
            return self.refuse(403, 516, "Code: 516. DB::Exception: Authentication failed. (AUTHENTICATION_FAILED)")
        query = parameters.pop("query")
        for name in [name for name in parameters if name.startswith("param_")]:
            # The library has no parameters of queries.
            value = parameters.pop(name).replace("\\", "\\\\").replace("'", "\\'")
            query = re.sub(r"\{" + name[6:] + r":(\w+)\}", lambda found: f"CAST('{value}' AS {found[1]})", query)
        settings = ", ".join(f"{name} = '{value}'" for name, value in parameters.items())
        is_insert = query.startswith("INSERT")
        if settings:
            query = query.replace(" FORMAT ", f" SETTINGS {settings} FORMAT ", 1)
        try:
            with lock:
                answer = engine.query(query + ("\n" + body if is_insert else "")).bytes()
                if is_insert and silent > 0:
                    silent -= 1
                    self.close_connection = True
                    return
        except RuntimeError as error:
            return self.refuse(500, re.match(r"Code: (\d+)", str(error))[1], str(error))
        self.answer(200, [], answer)

    def refuse(self, status, code, text):
        self.answer(status, [("X-ClickHouse-Exception-Code", str(code))], text.encode())

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in [*headers, ("content-length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Interface)
threading.Thread(target=told, daemon=True).start()
print(server.server_port, flush=True)
server.serve_forever()
