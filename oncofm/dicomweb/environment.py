"""Who we are to servers that a table names: said by the environment, as passwords should be."""

import os
from pathlib import Path

from oncofm.dicomweb.server import Server
from oncofm.errors import WebRefusedError

SERVER, TOKEN_FILE, CA = "ONCOFM_WEB_SERVER", "ONCOFM_WEB_TOKEN_FILE", "ONCOFM_WEB_CA"
"""Address of the one service that gets the token, file of the token, PEM of an authority."""


def open_server(url: str) -> Server:
    """Get ready to ask a server, with the token if it is the one that the token is for.

    Parameters
    ----------
    url : str
        Address of the DICOMweb service.

    Raises
    ------
    WebError
        If the environment says what cannot be used.
    """
    token_file, ca = os.environ.get(TOKEN_FILE), os.environ.get(CA)
    trusted = os.environ.get(SERVER, "").rstrip("/")
    if token_file and not trusted:
        raise WebRefusedError(
            f"{TOKEN_FILE} is set without {SERVER}; set that to the address of the service that "
            "the token is for."
        )
    is_for_it = bool(token_file) and url.rstrip("/") == trusted
    return Server(
        url,
        token_file=Path(token_file) if token_file and is_for_it else None,
        ca=Path(ca) if ca else None,
    )
