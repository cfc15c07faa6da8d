"""Files to the Hugging Face Hub and from there. Whatever goes wrong on the way is one line of `InputError`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_token,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from gopro.errors import InputError

CARD = "README.md"
OURS = "<!-- gopro push writes this card anew each time; without this line it leaves the card alone. -->"
"""Ends a model card that may be written over."""


def download(repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder in the Hub's cache that holds the repository's files of these patterns, fetched as far as they are not
    there. Without a connection what was fetched before is taken.

    Args:
        repository: `ORG/NAME`.
        revision: a branch, tag or commit; main if not given.

    Raises:
        InputError: no such repository or revision, one that no token of the user's opens, no connection.
    """
    with _in_words(repository, revision):
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(patterns),
            library_name="gopro",
            library_version=version("gopro"),
        )
    return Path(folder)


def upload(
    repository: str,
    files: Mapping[str, Path | bytes],
    *,
    replaced: str,
    private: bool,
    revision: str | None,
    message: str,
) -> str:
    """Commits the files to a repository, which is made if there is none. A card there that is not ours stays.

    Args:
        repository: `ORG/NAME`.
        files: by their paths in the repository, the card among them.
        replaced: a folder in which all that is not among the files is deleted.
        private: whether only those whom its owner lets may see it.
        revision: the branch to commit to, made if there is none; main if not given.

    Returns: the address of the commit.

    Raises:
        InputError: the Hub takes nothing from the user's token or there is none, no connection, or the repository is
            public where a private one is asked for.
    """
    api = HfApi(library_name="gopro", library_version=version("gopro"))
    with _in_words(repository, revision):
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise InputError(f"{repository} is there already and everyone sees it: make it private there first")
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        there = api.list_repo_files(repository, revision=revision)
        kept = CARD in there and OURS not in Path(hf_hub_download(repository, CARD, revision=revision)).read_text(
            encoding="utf-8"
        )
        operations = [
            *(CommitOperationDelete(f) for f in there if f.startswith(f"{replaced}/") and f not in files),
            *(CommitOperationAdd(name, content) for name, content in files.items() if not (kept and name == CARD)),
        ]
        return api.create_commit(repository, operations, commit_message=message, revision=revision).commit_url


@contextmanager
def _in_words(repository: str, revision: str | None) -> Iterator[None]:
    """What the Hub's client raises, as one line."""
    token = get_token() is not None
    log_in = "log in with hf auth login, or set HF_TOKEN"
    try:
        yield
    except InputError:
        raise
    except HFValidationError as error:
        raise InputError(f"{repository} is no name of a repository on the Hub ({_first_line(error)})") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{repository} on the Hub has no revision {revision}") from error
    except RepositoryNotFoundError as error:  # a gated one, too: the Hub tells strangers no difference
        private = "it is private and your token does not open it" if token else f"it is private: {log_in}"
        raise InputError(f"{repository} is neither a folder nor on the Hub, or {private}") from error
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{repository} is no folder, and the Hub ({HfApi().endpoint}) cannot be reached to look for it there"
        ) from error
    except HfHubHTTPError as error:
        said = f"an error of the Hub: {_first_line(error)}"
        if error.response is not None and error.response.status_code in (401, 403):
            said = "the Hub does not let your token do that" if token else f"the Hub asks who you are: {log_in}"
        raise InputError(f"{repository}: {said}") from error
    except Exception as error:  # the HTTP client underneath, and so its errors, differ between versions
        raise InputError(f"{repository} on the Hub ({HfApi().endpoint}): {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
