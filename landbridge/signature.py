"""Signed bundles: an OpenSSF model signature (`model.sig`) over every file, made and checked with a key pair.

The signature is a Sigstore bundle as the tool `model_signing` writes it, so that tool checks a bundle's folder too:
`model_signing verify key policy.bundle --signature policy.bundle/model.sig --public-key key.pub`. Nothing is asked of
any server. Keys are PEM files of an elliptic curve (P-256, P-384 or P-521) without a password; KEYGEN makes a pair.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from landbridge.bundle import SIGNATURE, Bundle, add_file, read_bundle
from landbridge.errors import InputError

KEYGEN = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem && openssl ec -in key.pem -pubout -out key.pub"


def sign(bundle: Path, /, private_key: Path) -> dict[str, Any]:
    """Sign a bundle, in place of any signature it has.

    Example: landbridge sign policy.bundle --private-key key.pem

    Args:
        bundle: Folder or zip written by `landbridge export`.
        private_key: Elliptic-curve key, PEM without a password; stays away from the robot.
    """
    config = _model_signing("signing").Config()
    read = read_bundle(bundle)
    _with_key(private_key, "private", lambda: config.use_elliptic_key_signer(private_key=private_key))
    with _unpacked(read) as folder:
        signature = folder.parent / SIGNATURE
        config.sign(folder, signature)
        add_file(read, SIGNATURE, signature.read_bytes())
    return {"bundle": str(bundle), "digest": read.digest, "signature": SIGNATURE}


def require_signature(bundle: Bundle, public_key: Path) -> None:
    """Raise InputError unless the bytes in memory carry a signature by the private half of `public_key`."""
    config = _model_signing("verifying").Config()
    if SIGNATURE not in bundle.files:
        raise InputError(bundle.path, f"{SIGNATURE} is missing: it is not signed", "sign it with `landbridge sign`")
    _with_key(public_key, "public", lambda: config.use_elliptic_key_verifier(public_key=public_key))
    with _unpacked(bundle) as folder:
        signature = folder.parent / SIGNATURE
        signature.write_bytes(bundle.files[SIGNATURE])
        try:
            config.verify(folder, signature)
        except Exception as error:  # of json, protobuf and cryptography, by what is wrong with the file
            raise InputError(
                bundle.path / SIGNATURE,
                f"is no signature of this bundle by {public_key}: {str(error) or type(error).__name__:.150}",
                "do not run it; get the bundle anew from who signs for this robot, or name the right public key",
            ) from error


def _with_key(path: Path, half: Literal["private", "public"], use: Callable[[], Any]) -> None:
    other = "public" if half == "private" else "private"
    remedy = f"name the {half} key of a pair, as `{KEYGEN}` makes one"
    try:
        use()
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", remedy) from error
    except (ValueError, TypeError, AttributeError) as error:  # of its library: no PEM, encrypted, not elliptic
        if f"{other} key".upper().encode() in path.read_bytes():
            raise InputError(path, f"is the {other} half of a pair", f"name the {half} one") from error
        raise InputError(path, "is no elliptic-curve key in a PEM file without a password", remedy) from error


@contextmanager
def _unpacked(bundle: Bundle) -> Iterator[Path]:
    """A folder with the signed files, written from memory: what is checked is what is used."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        for name, content in bundle.files.items():
            if name != SIGNATURE:
                (folder / name).write_bytes(content)
        yield folder


def _model_signing(module: str) -> Any:
    """`model_signing.signing` or `.verifying`, imported when used: they take a second."""
    try:
        import model_signing.signing
        import model_signing.verifying
    except ModuleNotFoundError as error:
        raise InputError(
            SIGNATURE, f"python package {error.name!r} is not installed", "pip install 'landbridge[signing]'"
        ) from error
    return getattr(model_signing, module)
