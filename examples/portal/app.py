"""The portal's app in Python, as a WSGI application: login, a page, publishing, a stream of its own."""
import json, os, secrets, time, urllib.request
from http.cookies import SimpleCookie
from pathlib import Path
from socketserver import ThreadingMixIn
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIServer, make_server

PORT, CONTROL = int(os.environ.get("PORT", "3000")), os.environ.get("CONTROL", "http://127.0.0.1:7070")
users = {}  # cookie -> user

def ticker(last):
    while True:
        for last in range(last + 1, int(time.time() * 10) + 1):
            yield f"id: {last}\ndata: {last}\n\n".encode()
        time.sleep(0.02)

def app(environ, start):
    path, cookie = environ["PATH_INFO"], SimpleCookie(environ.get("HTTP_COOKIE", "")).get("sid")
    user = users.get(cookie.value) if cookie else None
    form = lambda: {k: v[0] for k, v in parse_qs(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode()).items()}
    def answer(status, *headers, body=b""):
        start(status, list(headers))
        return [body]
    if path == "/":
        page = (Path(__file__).parent / "page.html").read_text().replace("USER", user or "nobody yet")
        return answer("200 OK", ("Content-Type", "text/html; charset=utf-8"), body=page.encode())
    if path == "/login":
        sid = secrets.token_hex()
        users[sid] = form()["user"]
        return answer("303 See Other", ("Location", "/"), ("Set-Cookie", f"sid={sid}; HttpOnly; SameSite=Lax; Path=/"))
    if path == "/session":
        return answer("200 OK", ("Remote-User", user)) if user else answer("401 Unauthorized")
    if path == "/publish" and user:
        event = json.dumps({"topic": "game/7", **form()}).encode()
        urllib.request.urlopen(f"{CONTROL}/publish", data=event)
        return answer("303 See Other", ("Location", "/"))
    if path == "/ticker":
        start("200 OK", [("Content-Type", "text/event-stream")])
        return ticker(int(environ.get("HTTP_LAST_EVENT_ID") or time.time() * 10))
    return answer("404 Not Found")

class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

if __name__ == "__main__":
    print(f"http://127.0.0.1:{PORT}", flush=True)
    make_server("127.0.0.1", PORT, app, Server).serve_forever()
