"""What to do about a connection that did not come about, by what gRPC says of it."""

_NOBODY = "check the target, and that a server runs there (`backwire serve` starts one)"
_REMEDIES = {  # the first whose sign is there
    "certificate has expired": "have the server's certificate renewed, or set the clock here if that is wrong",
    "CERTIFICATE_VERIFY_FAILED": (
        "have the server's certificate renewed if it has expired, and trust its authority here (root_certificates, or "
        "--ca)"
    ),
    "Hostname Verification": (
        "the server's certificate is for another host: connect by a name that it has, or tell that (server_name, or "
        "--server-name)"
    ),
    "WRONG_VERSION_NUMBER": "what answers does not encrypt: connect without tls (or --ca), or check the port",
    "create security handshaker": (
        "the certificates or the key given here are no PEM, or do not go together: check them"
    ),
    "Socket closed": f"{_NOBODY}; one that encrypts wants tls (or --ca)",
}


def remedy_for(message: str) -> str:
    """Returns what to do where gRPC says this of a server that could not be reached."""
    return next((remedy for sign, remedy in _REMEDIES.items() if sign in message), _NOBODY)
