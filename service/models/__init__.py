"""Models as files, before they are loaded.

`location.py` finds the folder that the operator named, with `demo.py` (the embedded default, made by `wheel.py` and
`gguf.py`) and `hub.py` (Hugging Face). `folder.py` checks a folder, `profile.py` reads what the service needs to know,
`fingerprint.py` digests what can change an answer. `progress.py` reports to people; `blas.py` loads OpenBLAS.
"""
