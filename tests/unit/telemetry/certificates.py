"""Certificates for tests, made by openssl."""

import subprocess
from pathlib import Path


def openssl(*arguments: str) -> None:
    """Run openssl; AssertionError with what it says if it fails."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def make_ca(directory: Path) -> None:
    """ca.crt and ca.key."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(
        "req", "-x509", *key, "-keyout", f"{directory}/ca.key", "-out", f"{directory}/ca.crt", "-days", "30", "-subj", "/CN=ca"
    )


def make_certificate(directory: Path, name: str, *, san: str = "DNS:localhost", days: int = 10) -> None:
    """NAME.crt and NAME.key, signed by the CA."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    request = f"{directory}/{name}.csr"
    openssl("req", "-new", *key, "-keyout", f"{directory}/{name}.key", "-out", request, "-subj", f"/CN={name}")
    extensions = directory / f"{name}.ext"
    extensions.write_text(f"subjectAltName={san}\n")
    ca = ["-CA", f"{directory}/ca.crt", "-CAkey", f"{directory}/ca.key", "-CAcreateserial", "-days", str(days)]
    openssl("x509", "-req", "-in", request, *ca, "-out", f"{directory}/{name}.crt", "-extfile", str(extensions))
