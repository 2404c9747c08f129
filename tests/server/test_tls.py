"""HTTPS with a certificate of the operator's, and sentences about certificates that cannot be used."""

import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from server.core.settings import Settings, SettingsError, load_settings
from server.serve import ListenError, serve
from tests.support.fakes import MODEL
from tests.support.world import OpenWorld


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        + ["-subj", "/CN=tessera-test", "-addext", "subjectAltName=IP:127.0.0.1"]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return certificate, key


async def test_serves_https(open_world: OpenWorld, certificate: tuple[Path, Path]) -> None:
    file, key = certificate
    trusting = ssl.create_default_context(cafile=str(file))
    async with open_world(live=True, api_key="secret", tls_certificate=file, tls_key=key) as world:
        url = world.url.replace("http:", "https:")
        async with httpx.AsyncClient(verify=trusting, timeout=20) as http:
            assert (await http.get(f"{url}/health")).status_code == 200
        async with AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key="secret",
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(verify=trusting),
        ) as client:
            stream = await client.completions.create(model=MODEL, prompt="Once", stream=True)
            assert "".join([event.choices[0].text async for event in stream]) == "Hello, world!"
        with pytest.raises(httpx.HTTPError):
            await world.client.get("/health")  # in plain text


async def test_key_and_certificate_may_share_a_file(
    open_world: OpenWorld, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_text("".join(file.read_text("ascii") for file in certificate), "ascii")
    async with open_world(live=True, tls_certificate=both) as world:
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        async with httpx.AsyncClient(verify=trusting, timeout=20) as http:
            assert (await http.get(world.url.replace("http:", "https:") + "/health")).status_code == 200


def test_a_certificate_that_cannot_be_used_stops_the_start(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    file, key = certificate
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish", "ascii")
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "ec", "-in", str(key), "-aes128", "-passout", "pass:word", "-out", str(locked)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    for pair in [(tmp_path / "missing.pem", key), (file, rubbish), (rubbish, key), (file, locked), (file, None)]:
        with pytest.raises(ListenError, match="certificate"):
            serve(Settings(port=0, tls_certificate=pair[0], tls_key=pair[1]))


def test_a_key_needs_a_certificate() -> None:
    with pytest.raises(SettingsError, match=r"TESSERA_TLS_KEY .*needs tls_certificate"):
        load_settings(["--tls-key", "key.pem"])
