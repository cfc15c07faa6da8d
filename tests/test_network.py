"""Servers that cannot be reached, and errors of downloads in whole words."""

import socket
import threading
from typing import Any

import pytest
from huggingface_hub import constants

from gopro.clip import backbone
from gopro.clip.backbone import load_backbone
from gopro.errors import InputError, one_line
from gopro.network import hub_cache_alone_if_offline, unreachable
from tests.support.web_server import serving


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a Hub that no longer runs."""
    with serving() as site:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", site.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return site.address


def test_a_server_that_answers_can_be_reached() -> None:
    with serving() as site:
        assert unreachable(site.address) is None


def test_a_server_that_is_gone_is_named(stopped: str) -> None:
    assert (unreachable(stopped) or "").startswith("127.0.0.1: ")


def test_a_network_that_swallows_everything_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()

    def wait(*_: Any, **__: Any) -> None:
        end.wait()
        raise OSError

    monkeypatch.setattr(socket, "create_connection", wait)
    assert unreachable("https://huggingface.co", seconds=0.01) == "huggingface.co: no answer within 0.01 s"
    end.set()


def test_the_proxy_is_what_has_to_be_reached(stopped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with serving() as site:
        monkeypatch.setenv("HTTPS_PROXY", site.address)
        assert unreachable("https://no-such-host.invalid") is None
    monkeypatch.setenv("HTTPS_PROXY", stopped)
    assert (unreachable("https://no-such-host.invalid") or "").startswith("proxy 127.0.0.1: ")


def test_the_hub_is_asked_for_nothing_while_it_cannot_be_reached(stopped: str) -> None:
    with hub_cache_alone_if_offline() as reason:
        assert constants.HF_HUB_OFFLINE and reason is not None
    assert not constants.HF_HUB_OFFLINE


WORDS = "weights of this model are somewhere else"


def fail(*_: Any, **__: Any) -> None:
    raise RuntimeError(f"{WORDS} " * 20)


def test_a_download_that_fails_says_why_in_whole_words(stopped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone.open_clip, "create_model", fail)
    with pytest.raises(InputError, match=r"no connection to the Hugging Face Hub, 127\.0\.0\.1: ") as offline:
        load_backbone("ViT-B-32:openai")
    assert "ViT-B-32-quickgelu:FILE" in str(offline.value)
    with serving() as site:
        monkeypatch.setattr(constants, "ENDPOINT", site.address)
        with pytest.raises(InputError) as online:
            load_backbone("ViT-B-32:openai")
    reason = str(online.value).partition("(")[2].partition(")")[0]
    assert reason.endswith(" …") and set(reason[:-2].split()) == set(WORDS.split())


def test_a_short_error_is_left_as_it_is() -> None:
    assert one_line(OSError("disk\n full")) == "disk full" and one_line(KeyError()) == "KeyError"
