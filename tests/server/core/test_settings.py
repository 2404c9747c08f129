"""Settings: one declaration, read from flags and environment, refused in sentences, documented by itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.core.settings import Settings, SettingsError, declarations, load_settings
from server.core.settings_help import help_text, refuse_unknown_flags
from tools.settings_docs import documents, env_example, with_table

FIXED = {
    "TESSERA_HOST": "0.0.0.0",
    "TESSERA_PORT": "9",
    "TESSERA_MODEL": "m",
    "TESSERA_SERVED_MODEL_NAME": "name",
    "TESSERA_API_KEY": "a,b",
    "TESSERA_MAX_BODY_BYTES": "5000",
    "TESSERA_ENGINE__DTYPE": "float32",
    "TESSERA_ENGINE__MAX_MODEL_LEN": "64",
    "TESSERA_ENGINE__MAX_NUM_BATCHED_TOKENS": "65",
    "TESSERA_ENGINE__MAX_NUM_SEQS": "6",
    "TESSERA_ENGINE__KV_CACHE_BYTES": "7",
    "TESSERA_MEDIA__ALLOW_PRIVATE_NETWORKS": "true",
}


def test_reads_the_promised_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FIXED.items():
        monkeypatch.setenv(name, value)
    settings = load_settings([])
    assert (settings.host, settings.port, settings.model, settings.model_name) == ("0.0.0.0", 9, "m", "name")
    assert settings.api_key is not None and settings.api_key.get_secret_value() == "a,b"
    assert settings.max_body_bytes == 5000
    engine = settings.engine
    assert (engine.dtype, engine.max_model_len, engine.max_num_batched_tokens) == ("float32", 64, 65)
    assert (engine.max_num_seqs, engine.kv_cache_bytes) == (6, 7)
    assert settings.media.allow_private_networks is True


def test_every_setting_has_a_variable_a_flag_and_a_description() -> None:
    declared = list(declarations())
    assert {declaration.variable for declaration in declared} >= set(FIXED)
    for declaration in declared:
        assert declaration.description.endswith("."), declaration.variable
        assert re.fullmatch(r"--[a-z.-]+", declaration.flag)


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_PORT", "1")
    monkeypatch.setenv("TESSERA_ENGINE__MAX_MODEL_LEN", "100")
    monkeypatch.setenv("TESSERA_ENGINE__MAX_NUM_SEQS", "3")
    settings = load_settings(["--port", "2", "--engine.max-model-len", "200", "--media.allow-private-networks", "true"])
    assert (settings.port, settings.engine.max_model_len, settings.engine.max_num_seqs) == (2, 200, 3)
    assert settings.media.allow_private_networks is True


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_PORT", "")
    monkeypatch.setenv("TESSERA_ENGINE__MAX_MODEL_LEN", "")
    assert load_settings([]) == Settings()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("TESSERA_PROT", "TESSERA_PORT"),
        ("TESSERA_ENGINE__MAX_MODEL_LENGTH", "TESSERA_ENGINE__MAX_MODEL_LEN"),
        ("TESSERA_ENGINE", "TESSERA_"),
        ("tessera_hots", "TESSERA_HOST"),
        ("TESSERA_XYZZY_PLUGH", "--help"),
    ],
)
def test_refuses_unknown_variables_with_a_hint(monkeypatch: pytest.MonkeyPatch, name: str, hint: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError) as caught:
        load_settings([])
    assert name in str(caught.value) and hint in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("DATA_FOLDER", "DATA_DIR"),
        ("ENGINE__LORA_FOLDER", "ENGINE__LORA_DIR"),
        ("ENGINE__WARM_SPARE", "ENGINE__WARM_STANDBY"),
        ("FILES__LIFETIME_S", "FILES__EXPIRES_AFTER_S"),
        ("MEDIA__FILE_FOLDER", "MEDIA__ALLOWED_LOCAL_PATH"),
        ("MEDIA__MAX_QUEUE", "MEDIA__MAX_QUEUED_JOBS"),
        ("MEDIA__TIMEOUT_S", "MEDIA__DECODE_TIMEOUT_S"),
    ],
)
def test_a_former_name_ends_the_start_with_the_new_one(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    by_variable = {declaration.variable: declaration.flag for declaration in declarations()}
    flag = "--" + old.lower().replace("__", ".").replace("_", "-")
    for arguments in ([flag, "1"], [f"{flag}=1"]):
        with pytest.raises(SettingsError, match=f"{flag} is now called {by_variable['TESSERA_' + new]}"):
            load_settings(arguments)
    monkeypatch.setenv(f"TESSERA_{old}", "1")
    with pytest.raises(SettingsError, match=f"TESSERA_{old} is now called TESSERA_{new}"):
        load_settings([])


def test_reading_settings_loads_no_http_client() -> None:
    code = "import sys, server.core.settings; assert not {'httpx', 'httpcore'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TESSERA_PORT", "abc", ("TESSERA_PORT", "--port", "'abc'", "integer")),
        ("TESSERA_PORT", "70000", ("TESSERA_PORT", "65535")),
        ("TESSERA_ENGINE__DTYPE", "float16", ("TESSERA_ENGINE__DTYPE", "float16", "overflows", "'bfloat16'")),
        ("TESSERA_MEDIA__NUM_WORKERS", "0", ("TESSERA_MEDIA__NUM_WORKERS", "1")),
        ("TESSERA_KEEP_ALIVE_S", "nan", ("TESSERA_KEEP_ALIVE_S",)),
    ],
)
def test_refuses_wrong_values_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings([])
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_help_shows_every_flag_with_its_meaning() -> None:
    text = " ".join(help_text(columns=80).split())
    for declaration in declarations():
        assert f"{declaration.flag} " in text
        assert " ".join(declaration.description.split()) in text


def test_refuses_unknown_flags_and_proposes_the_closest() -> None:
    refuse_unknown_flags(["--port", "--", "--media.max-video-pixels=1", "--engine", "{}"])
    for flag, meant in (("--prot", "--port"), ("--media.max_video_pixels=1", "--media.max-video-pixels")):
        with pytest.raises(SettingsError, match=f"Is {meant} meant"):
            refuse_unknown_flags([flag])


def test_the_example_file_sets_nothing_and_shows_all_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    text = env_example()
    assert all(not line or line.startswith("#") for line in text.splitlines())
    for line in text.splitlines():
        match = re.fullmatch(r"#(TESSERA_\w+)=(.*)", line)
        if match and match[1] not in ("TESSERA_API_KEY", "TESSERA_API_KEYS_FILE"):  # an empty one ends the start
            monkeypatch.setenv(match[1], match[2])
    assert load_settings([]) == Settings()


BEGIN, END = "<!-- settings:begin -->", "<!-- settings:end -->"


def test_the_table_replaces_what_is_between_the_markers() -> None:
    text = with_table(f"before\n{BEGIN}\nstale-rows\n{END}\nafter\n")
    assert text.startswith(f"before\n{BEGIN}\n| variable |") and text.endswith(f"|\n{END}\nafter\n")
    assert "stale-rows" not in text and with_table(text) == text
    with pytest.raises(ValueError):
        with_table("no markers")


def test_the_documents_say_what_is_declared() -> None:
    root = Path(__file__).parents[3]
    for path, text in documents(root).items():
        assert path.read_text("utf-8") == text, f"run `python -m tools.settings_docs --write`: {path.name} has drifted"
