"""Models as files, before they are loaded.

`location.py` finds the folder of a name (`names.py`): `demo.py` (the demo model, by `wheel.py` and `gguf.py`) or
`hub.py` (Hugging Face). `folder.py` checks it, `profile.py` reads its properties, `fingerprint.py` digests it.
`inventory.py` lists installed models, `recommended.py` suggests some. `progress.py` reports to people; `errors.py`
has what goes wrong; `blas.py` loads OpenBLAS.
"""
