"""Makes keys and signatures of minisign, with a program that is not ours.

sign.py keys NAME          writes NAME.key and NAME.pub
sign.py sign NAME FILE OUT signs a file with NAME.key
"""

import sys
from pathlib import Path

import minisign

what, name, *more = sys.argv[1:]
if what == "keys":
    pair = minisign.KeyPair.generate()
    Path(f"{name}.key").write_bytes(bytes(pair.secret_key))
    Path(f"{name}.pub").write_bytes(bytes(pair.public_key))
else:
    file, out = more
    key = minisign.SecretKey.from_file(f"{name}.key")
    Path(out).write_bytes(bytes(key.sign(Path(file).read_bytes(), prehash=True)))
