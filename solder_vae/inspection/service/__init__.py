"""The inspection over HTTP: requests in, the JSON of ``predict`` out.

Starlette and uvicorn come with the extra ``serve``; only :mod:`solder_vae.serve` leads here, when it is asked to.
"""
