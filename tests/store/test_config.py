from pathlib import Path

import pytest

from store import config, toml_errors
from store.config import ConfigError, RunConfig, parse


def test_what_is_dumped_is_read_back() -> None:
    for changed in (
        RunConfig(),
        RunConfig(
            name="a.b-c",
            loop=config.Loop(experiments=30, random_parent_share=0.25, seed=2**62),
            trials=config.Trials(baselines=["delta_net", "gla"]),
            budget=config.Budget(wall_hours=1.5),
        ),
    ):
        text = config.dump(changed)
        assert parse(text) == changed
        assert all("#" in line for line in text.splitlines()[2:] if line), "every setting says what it is for"


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("")
    assert config.load(tmp_path / "run.toml") == RunConfig()


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("x = = 3", "1:5", "not valid TOML"),
        ("format = 1\n[loop", "2:6", "not valid TOML"),
        ('a = """x\n\n', "3:1", "not valid TOML"),
        ("[loop]\nexperimnts = 3", "2:1", "did you mean experiments?"),
        ("[loop]\n  experimnts = 3", "2:3", "did you mean experiments?"),
        ("[lop]\nexperiments = 3", "1:2", "did you mean loop?"),
        ("[zzz]\na = 1", "1:2", "known here: format"),
        ("format = 1\nlop.seed = 3", "2:1", "did you mean loop?"),
        ("[budget]\nexperiments = 3\n[loop]\nexperiments = 'x'", "4:1", "must be a whole number, not text"),
        ("loop.experiments = -1", "1:6", "must be at least 0"),
        ("loop = {seed = 1, experiments = 'x'}", "1:19", "loop.experiments: must be a whole number"),
        ("loop = 3", "1:1", "must be a [table], not a whole number"),
        ('name = "../x"', "1:1", "letters, digits"),
        ("[trials]\ntier = 'explore'", "2:1", '\'explore\' is not one of "probe"'),
        ("[trials]\nbaselines = ['a', 3]", "2:1", 'must be text in "quotes", not a whole number'),
        ("[trials]\nbaselines = ['a', 'b c']", "2:1", "letters, digits"),
        ("[gate]\nexpires_minutes = 0", "2:1", "must be more than 0"),
        ("[gate]\nexpires_minutes = inf", "2:1", "must be at most"),
        ("[budget]\nwall_hours = nan", "2:1", "must be at least 0"),
        ("[loop]\nrandom_parent_share = true", "2:1", "must be a number, not true or false"),
        ("[loop]\nseed = 1979-01-01", "2:1", "must be a whole number"),
        ("[sampling]\nreferences_from = 60", "2:1", "larger than sampling.references_to"),
        ("[trials]\nfirst_seeds = 3\nmax_seeds = 2", "3:1", "larger than trials.max_seeds"),
        ("\n\nformat = 2", "3:1", "written by a newer version of asi (format 2; this one reads up to 1)"),
        ("format = 'x'", "1:1", "format must be a whole number"),
        ("format = 0", "1:1", "format must be a whole number"),
    ],
)
def test_errors_say_where_and_what(text: str, place: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    message = str(caught.value)
    assert message.startswith(f"run.toml:{place}: ")
    assert words in message
    assert "\n" not in message
    assert "`" not in message


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        config.load(path)
    path.write_bytes(b"format = 1\nname = '\xff'\n")
    with pytest.raises(ConfigError, match=r"run\.toml:2:9: not UTF-8"):
        config.load(path)
    path.write_bytes(b"#" * (toml_errors.MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than 1 MB"):
        config.load(path)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load(tmp_path)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        RunConfig().loop.seed = 3  # type: ignore[misc]
