"""Signatures over real bundles: made and checked by our commands, and checked by OpenSSF's own tool."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from landbridge.bundle import SIGNATURE, SUMS, read_bundle
from landbridge.cli import main
from landbridge.deploy.verify import verify
from landbridge.errors import InputError
from landbridge.signature import require_signature, sign

WEIGHT = np.ones((8, 1), np.float32)

MakeBundle = Callable[..., Path]


def key_pair(folder: Path, name: str, curve: ec.EllipticCurve | None = None) -> tuple[Path, Path]:
    private = ec.generate_private_key(curve or ec.SECP256R1())
    paths = folder / f"{name}.pem", folder / f"{name}.pub"
    paths[0].write_bytes(pem(private))
    paths[1].write_bytes(
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return paths


def pem(private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> bytes:
    locked = serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


@pytest.mark.parametrize("name", ["policy.bundle", "policy.zip"])
def test_signed_and_verified_as_folder_and_as_zip(tmp_path: Path, linear_bundle: MakeBundle, name: str) -> None:
    private, public = key_pair(tmp_path, "key")
    path = linear_bundle(tmp_path / name, WEIGHT)
    before = read_bundle(path)
    with pytest.raises(InputError, match=r"model\.sig is missing: it is not signed"):
        verify(path, public_key=public)
    assert main(["sign", str(path), "--private-key", str(private)]) == 0
    signed = read_bundle(path)
    assert (signed.digest, set(signed.files) - set(before.files)) == (before.digest, {SIGNATURE})
    assert verify(path, public_key=public)["signature"] == f"by {public}"
    assert main(["verify", str(path), "--public-key", str(public)]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"key.pem", "key.pub", name}


def test_openssfs_own_tool_accepts_it(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    private, public = key_pair(tmp_path, "key")
    path = linear_bundle(tmp_path / "policy.bundle", WEIGHT)
    sign(path, private)
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(path)]
    keys = ["--signature", str(path / SIGNATURE), "--public_key", str(public)]
    done = subprocess.run([*command, *keys], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_key_or_another_bundles_signature_is_refused(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    (private, public), (_, stranger) = key_pair(tmp_path, "key"), key_pair(tmp_path, "stranger")
    path, other = (linear_bundle(tmp_path / name, WEIGHT * k) for k, name in ((1, "a"), (2, "b")))
    sign(path, private)
    with pytest.raises(InputError, match=r"is no signature of this bundle by .*stranger\.pub"):
        require_signature(read_bundle(path), stranger)
    shutil.copy(path / SIGNATURE, other / SIGNATURE)
    with pytest.raises(InputError, match=r"is no signature of this bundle by .*Hash mismatch"):
        require_signature(read_bundle(other), public)


def test_a_forger_who_mends_the_checksums_is_found(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    """SHA256SUMS alone protects against accidents only; the signature is over it and over every file."""
    private, public = key_pair(tmp_path, "key", ec.SECP384R1())
    path, forged = linear_bundle(tmp_path / "a", WEIGHT), linear_bundle(tmp_path / "forged", WEIGHT * 2)
    sign(path, private)
    for name in ("policy.onnx", "golden.npz", SUMS):
        shutil.copy(forged / name, path / name)
    bundle = read_bundle(path)
    with pytest.raises(InputError, match="is no signature of this bundle"):
        require_signature(bundle, public)


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"\xff\xfe", b'{"dsseEnvelope": {}}'])
def test_a_broken_signature_is_refused(tmp_path: Path, linear_bundle: MakeBundle, content: bytes) -> None:
    _, public = key_pair(tmp_path, "key")
    path = linear_bundle(tmp_path / "a", WEIGHT)
    (path / SIGNATURE).write_bytes(content)
    with pytest.raises(InputError, match=r"model\.sig: is no signature of this bundle"):
        require_signature(read_bundle(path), public)


def test_unusable_keys_are_refused_before_anything_is_written(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    path = linear_bundle(tmp_path / "a", WEIGHT)
    before = sorted(path.iterdir())
    for name, content in (
        ("garbage", b"no key"),
        ("rsa", pem(rsa.generate_private_key(65537, 2048))),
        ("curve", pem(ec.generate_private_key(ec.SECP256K1()))),
        ("locked", pem(ec.generate_private_key(ec.SECP256R1()), b"secret")),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            InputError, match=rf"{name}: is no elliptic-curve key.*without a password\. name the private"
        ):
            sign(path, tmp_path / name)
    with pytest.raises(InputError, match="absent: cannot be read: No such file"):
        sign(path, tmp_path / "absent")
    private, public = key_pair(tmp_path, "pair")
    with pytest.raises(InputError, match=r"is the public half of a pair\. name the private one"):
        sign(path, public)
    assert sorted(path.iterdir()) == before
    sign(path, private)
    with pytest.raises(InputError, match=r"is the private half of a pair\. name the public one"):
        verify(path, public_key=private)


def test_signing_again_replaces_the_signature(tmp_path: Path, linear_bundle: MakeBundle) -> None:
    (first, old), (second, public) = key_pair(tmp_path, "first"), key_pair(tmp_path, "second")
    path = linear_bundle(tmp_path / "a.zip", WEIGHT)
    sign(path, first)
    sign(path, second)
    require_signature(read_bundle(path), public)
    with pytest.raises(InputError):
        require_signature(read_bundle(path), old)


@pytest.mark.parametrize("name", ["v1", "v1.zip"])
def test_what_a_link_leads_to_is_signed(
    tmp_path: Path, linear_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    private, public = key_pair(tmp_path, "key")
    path = linear_bundle(tmp_path / name, WEIGHT)
    (tmp_path / "latest").symlink_to(path)
    sign(tmp_path / "latest", private)
    assert (tmp_path / "latest").is_symlink()
    require_signature(read_bundle(path), public)
    if path.is_dir():
        monkeypatch.chdir(path)
        sign(Path(), private)
        require_signature(read_bundle(path), public)
