"""Upload files to the Hugging Face Hub and download them. Every failure is an `InputError` of one line."""

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

from gopro.errors import InputError, one_line
from gopro.network import hub_cache_alone_if_offline, unreachable

CARD = "README.md"
# Cards on the Hub are recognised by this very line, so its wording cannot change.
CARD_MARK = "<!-- gopro push writes this card anew each time; without this line it leaves the card alone. -->"
"""Last line of a model card that `gopro push` may overwrite."""


def download(repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Download the files of a repository that match the patterns, and return their folder in the Hub's cache.

    Files in the cache are not downloaded again. Without a connection, the cached files are used.

    Args:
        repository: `ORG/NAME`.
        revision: a branch, tag or commit; by default main.

    Raises:
        InputError: no such repository or revision, no access to it, or no connection.
    """
    with hub_cache_alone_if_offline(), _one_line_errors(repository, revision):
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
    """Commit files to a repository, which is created if it does not exist, and return the URL of the commit.

    A model card without `CARD_MARK` was edited by its owner and is left alone.

    Args:
        repository: `ORG/NAME`.
        files: path in the repository → local file or content.
        replaced: a folder in the repository; its files that are not among `files` are deleted.
        private: create the repository as private.
        revision: the branch to commit to, created if it does not exist; by default main.

    Raises:
        InputError: no token, or one without write access; no connection; or `private` for a public repository.
    """
    api = HfApi(library_name="gopro", library_version=version("gopro"))
    if (reason := unreachable(api.endpoint)) is not None:
        raise InputError(f"{repository}: no connection to the Hub ({api.endpoint}), {reason}")
    with _one_line_errors(repository, revision):
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise InputError(f"{repository} exists already and is public: make it private on the Hub first")
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        existing = api.list_repo_files(repository, revision=revision)
        edited = CARD in existing and CARD_MARK not in Path(
            hf_hub_download(repository, CARD, revision=revision)
        ).read_text(encoding="utf-8")
        operations = [
            *(CommitOperationDelete(f) for f in existing if f.startswith(f"{replaced}/") and f not in files),
            *(CommitOperationAdd(name, content) for name, content in files.items() if not (edited and name == CARD)),
        ]
        return api.create_commit(repository, operations, commit_message=message, revision=revision).commit_url


@contextmanager
def _one_line_errors(repository: str, revision: str | None) -> Iterator[None]:
    """Turn the exceptions of the Hub's client into an `InputError` of one line."""
    token = get_token() is not None
    log_in = "log in with hf auth login, or set HF_TOKEN"
    try:
        yield
    except InputError:
        raise
    except HFValidationError as error:
        raise InputError(f"{repository} is not a valid repository name on the Hub ({one_line(error)})") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{repository} on the Hub has no revision {revision}") from error
    except RepositoryNotFoundError as error:  # the Hub's answer is the same for private and gated repositories
        private = "it is private and your token has no access" if token else f"it is private: {log_in}"
        raise InputError(f"{repository} is neither a folder nor on the Hub, or {private}") from error
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{repository} is not a folder, and the Hub ({HfApi().endpoint}) cannot be reached to look for it there"
        ) from error
    except HfHubHTTPError as error:
        reason = f"an error of the Hub: {one_line(error)}"
        if error.response is not None and error.response.status_code in (401, 403):
            reason = "your token may not do that on the Hub" if token else f"you are not logged in: {log_in}"
        raise InputError(f"{repository}: {reason}") from error
    except Exception as error:  # the HTTP client, and with it its exceptions, differs between versions
        raise InputError(f"{repository} on the Hub ({HfApi().endpoint}): {one_line(error)}") from error
