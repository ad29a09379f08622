"""A program: WsgiDAV over a folder, for one user. Arguments: port, folder, user, password."""

from __future__ import annotations

import sys

from cheroot.wsgi import Server
from wsgidav.wsgidav_app import WsgiDAVApp

if __name__ == "__main__":
    port, folder, user, password = sys.argv[1:]
    settings = {
        "host": "127.0.0.1",
        "port": int(port),
        "provider_mapping": {"/": folder},
        "simple_dc": {"user_mapping": {"*": {user: {"password": password}}}},
        "http_authenticator": {"accept_basic": True, "accept_digest": False},
        "dir_browser": {"enable": False},
        "verbose": 1,
    }
    Server(("127.0.0.1", int(port)), WsgiDAVApp(settings), numthreads=16).safe_start()
