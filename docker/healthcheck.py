#!/usr/bin/env python3
"""Whether the server in this container answers: the exit status is 0 once the model is ready, else 1.

Knows the port and HTTPS from the environment, as the server does; flags it cannot see. It is the container's own
server, so a certificate made out to another name is none of its business.
"""

import os
import ssl
import sys
from urllib.error import URLError
from urllib.request import urlopen

scheme = "https" if os.environ.get("TESSERA_TLS_CERTIFICATE") else "http"
url = f"{scheme}://127.0.0.1:{os.environ.get('TESSERA_PORT') or 8000}/health"
unchecked = ssl._create_unverified_context() if scheme == "https" else None  # noqa: S323 - names another host
try:
    print(urlopen(url, timeout=4, context=unchecked).read().decode())  # noqa: S310 - http or https
except (URLError, OSError) as error:
    sys.exit(f"{url}: {error}")
