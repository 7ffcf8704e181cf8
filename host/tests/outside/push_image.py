"""Pushes files as the layers of an image, with a client that is not ours, and prints the digest of the manifest.

push_image.py IMAGE USER:PASSWORD FILE:TYPE...   (`-` for nobody)
"""

import sys

import oras.client

image, who, *files = sys.argv[1:]
client = oras.client.OrasClient(insecure=True, auth_backend="basic" if who != "-" else "token")
if who != "-":
    user, password = who.split(":", 1)
    client.auth.set_basic_auth(user, password)
answer = client.push(target=image, files=files, disable_path_validation=True)
answer.raise_for_status()
print(answer.headers["Docker-Content-Digest"])
