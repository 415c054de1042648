"""Models as files, before they are loaded.

`location.py` finds the folder that the operator named, with `demo.py` (the embedded default, made by `wheel.py` and
`gguf.py`) and `hub.py` (Hugging Face). `folder.py` checks a folder, `profile.py` reads its properties, `fingerprint.py`
digests its files. `inventory.py` lists installed models, `recommended.py` suggests some. `progress.py` reports to
people; `blas.py` loads OpenBLAS.
"""
