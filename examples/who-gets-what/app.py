#!/usr/bin/env python3
"""A tiny app that logs people in. Nothing but the standard library.

For people: https://localhost:3000, with the edge's development certificate (start the edge first).
For the edge: http://127.0.0.1:3001/session, which says who a cookie belongs to.
"""

import os
import secrets
import ssl
import threading
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit
from urllib.request import Request, urlopen

HERE = Path(__file__).parent
PORT = int(os.environ.get("APP_PORT", "3000"))
SESSION_PORT = int(os.environ.get("SESSION_PORT", "3001"))
EDGE = os.environ.get("EDGE", "https://localhost:8443")
CONTROL = os.environ.get("CONTROL", "http://127.0.0.1:7070")
CERTIFICATE = os.environ.get("CERTIFICATE", "certs/localhost.pem")

GROUPS = {"bob": ["editors"], "ann": ["sales"], "eve": []}
sessions = {}  # cookie -> user


def user_of(request):
    cookie = SimpleCookie(request.headers.get("Cookie", "")).get("sid")
    return sessions.get(cookie.value) if cookie else None


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class App(Handler):
    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/":
            page = (HERE / "page.html").read_text().replace("EDGE", EDGE)
            self.answer(200, page.encode(), Content_Type="text/html; charset=utf-8")
        elif url.path == "/login":
            user = parse_qs(url.query).get("user", [""])[0]
            if user not in GROUPS:
                return self.answer(404)
            sid = secrets.token_urlsafe(16)
            sessions[sid] = user
            cookie = f"sid={sid}; Path=/; Secure; HttpOnly; SameSite=Lax"
            self.answer(303, Location="/", Set_Cookie=cookie)
        else:
            self.answer(404)

    def do_POST(self):
        if urlsplit(self.path).path != "/logout":
            return self.answer(404)
        # Here, in the browser, and in the streams that are open in other tabs and on other devices.
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("sid")
        user = sessions.get(cookie.value) if cookie else None
        for sid in [sid for sid, known in list(sessions.items()) if known == user]:
            sessions.pop(sid, None)
        if user:
            try:
                urlopen(Request(f"{CONTROL}/users/{quote(user, safe='')}/disconnect", method="POST"))
            except OSError as error:  # The edge asks again within access.session_recheck.
                print(f"the edge does not know yet that {user} has logged out: {error}", flush=True)
        self.answer(303, Location="/", Set_Cookie="sid=; Path=/; Secure; HttpOnly; Max-Age=0")


class Session(Handler):
    def do_GET(self):
        user = user_of(self)
        if user:
            self.answer(200, Remote_User=user, Remote_Groups=",".join(GROUPS[user]))
        else:
            self.answer(200)  # a visitor, and nobody in particular


def main():
    people = ThreadingHTTPServer(("127.0.0.1", PORT), App)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    people.socket = tls.wrap_socket(people.socket, server_side=True)
    edge = ThreadingHTTPServer(("127.0.0.1", SESSION_PORT), Session)
    threading.Thread(target=edge.serve_forever, daemon=True).start()
    print(f"open https://localhost:{PORT}/", flush=True)
    people.serve_forever()


if __name__ == "__main__":
    main()
