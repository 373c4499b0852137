"""Secrets that are not to be written or printed, and control characters that are not to be printed."""

import pytest

from pipeline.errors import UsageError, masked, masked_flags


@pytest.mark.parametrize(
    "flags",
    [
        ["--s3_secret_access_key=SECRET"],
        ["--s3_access_key_id=SECRET"],
        ["--s3_session_token", "SECRET"],
        ["--azure_connection_string=AccountName=x;AccountKey=SECRET;y"],
        ['--environment_config={"env": {"API_TOKEN": "SECRET"}}'],
        ["--flink_master=https://me:SECRET@host:1/x"],
        ["--url=https://host/x?sig=SECRET&y=SECRET"],
    ],
)
def test_secrets(flags):
    assert "SECRET" not in str(masked_flags(flags))
    assert "SECRET" not in masked(f"error: {' '.join(flags)} is wrong")
    assert "SECRET" not in str(UsageError(f"{' '.join(flags)} is wrong"))
    assert len(masked_flags(flags)) == len(flags)


def test_a_name_cannot_command_a_terminal():
    error = UsageError("no field 'x'. Fields found: \x1b]0;owned\x07, \udcff\u202e, é")
    assert str(error) == r"no field 'x'. Fields found: \x1b]0;owned\x07, \udcff\u202e, é"


@pytest.mark.parametrize(
    "text",
    [
        "--runner=FlinkRunner",
        "--input=gs://bucket/a?.parquet,gs://bucket/b*",
        "--num_workers",
        "https://host/path",
        "no field 'key' (--id_field)",
        "mail me@example.com",
    ],
)
def test_nothing_else_is_masked(text):
    assert masked(text) == text
    assert masked_flags([text]) == (text,)
