"""What a job file may say, and what is said about one that is wrong."""

from __future__ import annotations

import re

import pytest

from rdu_batch.errors import SpecError
from rdu_batch.job.loading import load_spec
from rdu_batch.job.spec import JobSpec


def problems_of(text: str, **options: object) -> list[str]:
    """The problems of a job file that must have some."""
    with pytest.raises(SpecError) as caught:
        load_spec(text, source="job.yaml", **options)  # type: ignore[arg-type]
    return list(caught.value.problems)


def test_a_whole_job_file_becomes_frozen_values(whole_job: str) -> None:
    """Every leaf arrives with its type, and {date} is filled wherever it may stand."""
    spec = load_spec(whole_job, source="job.yaml", date="2026-11-22")
    assert spec.input.urls == ("s3://corpus/reviews/2026-11-22/*.jsonl",)
    assert spec.output.url == "s3://corpus/predictions/2026-11-22/"
    assert spec.prompt.template == "Review: {{ row.text }}\nSentiment:"
    assert spec.generation.stop == ("\n",)
    assert (spec.workers.cpus, type(spec.workers.cpus)) == (1.0, float)
    assert spec.limits.max_dead_rows == "0.1%"
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]


def test_the_defaults_are_those_of_the_design(small_job: str) -> None:
    """A small job gets every default."""
    spec = load_spec(small_job, source="job.yaml")
    assert (spec.generation.max_new_tokens, spec.generation.temperature) == (64, 0.0)
    assert (spec.output.format, spec.output.rows_per_shard) == ("jsonl", 10000)
    assert (spec.workers.count, spec.workers.min, spec.workers.max) == ("auto", 1, None)
    assert (spec.limits.max_dead_rows, spec.limits.attempts_per_row) == (0, 3)
    assert (spec.limits.row_timeout_s, spec.limits.start_timeout_s) == (120.0, 600.0)


@pytest.mark.parametrize(
    ("written", "wanted"),
    [("8GiB", 8 << 30), ("500MB", 500_000_000), ("64kiB", 65536), ("5", 5), ("null", None)],
)
def test_memory_is_a_number_of_bytes_or_one_with_a_unit(
    small_job: str, written: str, wanted: int | None
) -> None:
    """Binary and decimal units, as they are written elsewhere."""
    override = f"limits.session_memory_bytes={written}"
    spec = load_spec(small_job, source="job.yaml", overrides=[override])
    assert spec.limits.session_memory_limit_bytes == wanted


@pytest.mark.parametrize("written", ["0", "-1", "8Gi", "1.5GiB", "8 GiB", "true", "GiB", "0MB"])
def test_other_memory_is_refused(small_job: str, written: str) -> None:
    """With what was wanted."""
    told = problems_of(small_job, overrides=[f"limits.session_memory_bytes={written}"])
    assert len(told) == 1
    assert "such as" in told[0]


def test_every_problem_of_a_file_is_reported_at_once() -> None:
    """Wrong types, unknown keys, bounds, contradictions, templates, dates: one report."""
    text = """version: 2
name: Reviews
name: reviews
input:
  urls: "s3://{dat}/x"
  carry: [id, 1]
prompt:
  template: "{{ row.text }"
  field: text
  system: hi
  chat_template: yes
session:
  artifact: "s3://{date}"
generation:
  max_new_tokns: 3
  temperature: -1
  stop: [yes, 1, ""]
output:
  format: json
max_new_tokens: 3
workers: {count: 0, min: 3, max: 2, resources: {tpu: many}}
limits: {max_dead_rows: 0.1, deadline_s: 0, row_timeout_s: "3"}
"""
    told = [re.sub(r"^job\.yaml:(\d+): (\S+): .*", r"\1 \2", p) for p in problems_of(text)]
    assert sorted(told) == sorted(
        [
            "1 version",
            "2 name",
            "3 name",
            "5 input.urls",  # no list
            "5 input.urls",  # {dat}
            "6 input.carry[0]",
            "6 input.carry[1]",
            "8 prompt.template",
            "9 prompt.field",
            "10 prompt.system",
            "11 prompt.chat_template",
            "13 session.artifact",
            "15 generation.max_new_tokns",
            "16 generation.temperature",
            "17 generation.stop[1]",
            "17 generation.stop[2]",
            "18 output.url",
            "19 output.format",
            "20 max_new_tokens",
            "21 workers.count",
            "21 workers.max",
            "21 workers.resources.tpu",
            "22 limits.max_dead_rows",
            "22 limits.deadline_s",
            "22 limits.row_timeout_s",
        ]
    )


def test_problems_come_in_the_order_of_the_file(small_job: str) -> None:
    """Line order first, then the options."""
    text = small_job.replace("name: small", "name: S").replace("url: out", "url: 3")
    told = problems_of(text, overrides=["limits.x=1"], limit=-1)
    assert [problem.split(": ")[0] for problem in told] == [
        "job.yaml:2",
        "job.yaml:10",
        "--set limits.x=1",
        "--limit -1",
    ]


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (
            "generation: {max_new_tokns: 3}",
            (
                "job.yaml:11: generation.max_new_tokns: found an unknown key; wanted one of "
                "max_new_tokens, min_new_tokens, temperature, top_k, top_p, min_p, "
                "repetition_penalty, stop, stop_token_ids, seed, num_samples, logprobs, "
                "overrides_field; "
                "did you mean max_new_tokens?"
            ),
        ),
        (
            "temperature: 1",
            (
                "job.yaml:11: temperature: found an unknown key; "
                "wanted one of version, name, input, "
                "prompt, session, generation, output, workers, limits; "
                "did you mean generation.temperature?"
            ),
        ),
        (
            "limits: {max_dead_rows: 0.1}",
            (
                "job.yaml:11: limits.max_dead_rows: found 0.1; wanted a whole number of rows, or a "
                'percentage of them from "0%" to "100%", such as "0.1%"'
            ),
        ),
        ("generation: {top_p: 1.5}", "generation.top_p: found 1.5; wanted a number of at most 1"),
        ("generation: {top_p: 0}", "generation.top_p: found 0; wanted a number above 0"),
        ("generation: {seed: true}", "generation.seed: found true; wanted a whole number"),
        ("generation: {temperature: .nan}", "found nan; wanted a finite number"),
        ("generation: []", "generation: found a list of 0; wanted a mapping"),
        ("generation: {stop: [a, a]}", 'generation.stop: found "a" 2 times; wanted it once'),
        (
            "generation: {stop_token_ids: [7, 8, 7]}",
            "generation.stop_token_ids: found 7 2 times; wanted it once",
        ),
        (
            "generation: {stop_token_ids: [-1]}",
            "generation.stop_token_ids[0]: found -1; wanted a number of at least 0",
        ),
        (
            "generation: {stop_token_ids: [true]}",
            "generation.stop_token_ids[0]: found true; wanted a whole number",
        ),
        ("generation: {min_p: 0}", "generation.min_p: found 0; wanted a number above 0"),
        ("generation: {min_p: 1.1}", "generation.min_p: found 1.1; wanted a number of at most 1"),
        (
            "generation: {repetition_penalty: 0}",
            "generation.repetition_penalty: found 0; wanted a number of at least 0.01",
        ),
        ("generation: {repetition_penalty: 101}", "found 101; wanted a number of at most 100"),
        (
            "generation: {min_new_tokens: 65}",
            (
                "generation.min_new_tokens: found 65; "
                "wanted at most generation.max_new_tokens, which is 64"
            ),
        ),
        (
            "generation: {min_new_tokens: 3, max_new_tokens: 2}",
            "found 3; wanted at most generation.max_new_tokens, which is 2",
        ),
        (
            "generation: {num_samples: 3}",
            (
                "generation.num_samples: found 3 with generation.temperature 0, which makes them "
                "all alike; wanted 1, or a temperature above 0"
            ),
        ),
        (
            "generation: {num_samples: 0, temperature: 1}",
            "generation.num_samples: found 0; wanted a number of at least 1",
        ),
        ("generation: {logprobs: 5}", "generation.logprobs: found 5; wanted true or false"),
        ("generation: {overrides_field: ''}", 'found ""; wanted text that is not empty'),
        (
            f"generation: {{max_new_tokens: -{'7' * 200}}}",
            f"found -{'7' * 76}...; wanted a number of at least 1",
        ),
        ("workers: {count: 5, max: 2}", "workers.count: found 5; wanted at most workers.max"),
        ("workers: {count: many}", 'found "many"; wanted a whole number, at least 1, or "auto"'),
        ("limits: {max_dead_rows: 101%}", 'found "101%"; wanted a whole number of rows'),
        ("limits: {max_dead_rows: -1}", "found -1; wanted a whole number of rows"),
    ],
)
def test_a_mistake_is_told_with_what_was_wanted(small_job: str, extra: str, sentence: str) -> None:
    """Found, wanted, and the nearest right name."""
    (problem,) = problems_of(small_job + extra + "\n")
    assert sentence in problem


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("{}", "found none of them; wanted exactly one of template, field and messages_field"),
        ("{field: a, template: b}", "found template and field; wanted exactly one"),
        ("{field: a, system: b}", "wanted chat_template: true with it"),
        ("{messages_field: a, chat_template: false}", "prompt.chat_template: found false"),
        ("{field: a, date: 22-11-2026}", "wanted a date such as 2026-11-22"),
        ("{field: a, date: 2026-02-30}", "wanted a date such as 2026-11-22"),
        ("{template: '{{ text }}'}", "found the name text; wanted row; did you mean row.text?"),
        ("{template: '{% include \"a\" %}'}", "wanted a template on its own"),
        ("{template: '{{ row.a | randm }}'}", "No filter named 'randm'"),
        ("{template: '{{ lipsum() }}'}", "found the name lipsum"),
        ('{template: "a\\r\\nb"}', "found a carriage return"),
    ],
)
def test_a_wrong_prompt_is_found_with_its_line(small_job: str, prompt: str, sentence: str) -> None:
    """Before any row is read."""
    (problem,) = problems_of(small_job.replace("\n  field: text", f" {prompt}"))
    assert problem.startswith("job.yaml:5: ")
    assert sentence in problem


def test_a_mistake_in_a_long_template_names_its_line_in_the_template(small_job: str) -> None:
    """The line of the file is that of the key; the template has lines of its own."""
    template = "\n  template: |\n    a\n    {{ row.b\n    c"
    (problem,) = problems_of(small_job.replace("\n  field: text", template))
    assert problem.startswith("job.yaml:6: prompt.template: found a mistake in line 3 of the")


@pytest.mark.parametrize("name", ["prediction", "logprobs"])
def test_a_carried_field_may_not_have_a_name_of_a_predictions_own(
    small_job: str, name: str
) -> None:
    """Not even one that only some jobs write."""
    (problem,) = problems_of(small_job, overrides=[f"input.carry=[{name}]"])
    assert f'found "{name}"; wanted another field: a prediction has its own row, id, ' in problem
    assert problem.endswith("num_generated_tokens, logprobs, num_cut_tokens")


def test_a_chat_of_messages_has_a_chat_template_without_being_told(small_job: str) -> None:
    """messages_field alone turns it on; so does a spec that is made in Python."""
    text = small_job.replace("field: text", "messages_field: m\n  system: Be kind.")
    assert load_spec(text, source="job.yaml").prompt.chat_template
    made = JobSpec.model_validate(
        {
            "version": 1,
            "name": "a",
            "input": {"urls": ["x"]},
            "prompt": {"messages_field": "m"},
            "session": {"kind": "fake"},
            "output": {"url": "o"},
        }
    )
    assert made.prompt.chat_template


def test_only_a_fake_session_needs_no_artifact(small_job: str) -> None:
    """Any other kind is told how to make one."""
    (problem,) = problems_of(small_job.replace("kind: fake", "kind: eager"))
    assert problem.startswith("job.yaml:7: session.artifact: missing; wanted the URL of a compiled")


def test_a_contradiction_is_refused_in_python_too() -> None:
    """A spec that exists has none."""
    with pytest.raises(ValueError, match="prompt: found none of them"):
        JobSpec.model_validate({"prompt": {}})


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "text\n", "3\n"])
def test_a_file_that_is_no_mapping_is_one_problem(text: str) -> None:
    """An empty file too."""
    (problem,) = problems_of(text)
    assert problem.startswith("job.yaml:1: found ")
    assert "wanted a mapping that begins with version: 1" in problem


# --- Options -------------------------------------------------------------------------------------


def test_an_option_sets_any_leaf_with_its_yaml_type(small_job: str) -> None:
    """Numbers, lists, nothing, whole sections, and sections that the file does not have."""
    spec = load_spec(
        small_job,
        source="job.yaml",
        overrides=[
            "generation.max_new_tokens=32",
            "input.urls=[a,b]",
            "workers.resources.tpu=1",
            "limits={max_dead_rows: 5%}",
            "limits.deadline_s=",
            'generation.stop=["\\n", yes]',
            "prompt.field=a=b",
        ],
    )
    assert spec.generation.max_new_tokens == 32
    assert spec.input.urls == ("a", "b")
    assert spec.workers.resources == {"tpu": 1.0}
    assert (spec.limits.max_dead_rows, spec.limits.deadline_s) == ("5%", None)
    assert spec.generation.stop == ("\n", "yes")
    assert spec.prompt.field == "a=b"


def test_a_template_that_begins_with_a_name_is_a_text(small_job: str) -> None:
    """To YAML it would be a mapping within a mapping."""
    overrides = ["prompt={}", "prompt.template={{ row.text }}: short"]
    spec = load_spec(small_job, source="job.yaml", overrides=overrides)
    assert spec.prompt.template == "{{ row.text }}: short"


def test_a_later_option_wins_and_a_right_option_heals_a_wrong_file(small_job: str) -> None:
    """Only what is left in the end is checked."""
    text = small_job.replace("[in.jsonl]", "[3, 4]")
    overrides = ["input.urls=3", "input.urls=[c]"]
    assert load_spec(text, source="job.yaml", overrides=overrides).input.urls == ("c",)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "generation.max_new_tokn=3",
            (
                "--set generation.max_new_tokn=3: generation.max_new_tokn: found an unknown key; "
                "wanted one of max_new_tokens, min_new_tokens, temperature, top_k, top_p, min_p, "
                "repetition_penalty, stop, stop_token_ids, seed, num_samples, logprobs, "
                "overrides_field; did you mean max_new_tokens?"
            ),
        ),
        ("input.limit=x", '--set input.limit=x: input.limit: found "x"; wanted a whole number'),
        ("input.urls=[a, 3]", "--set input.urls=[a, 3]: input.urls[1]: found 3; wanted text"),
        (
            "name.a=3",
            '--set name.a=3: name.a: found "small" at name; wanted a mapping there to set a in',
        ),
        ("input.urls.0=3", "input.urls.0: found a list of 1 at input.urls; wanted a mapping"),
        ("foo", "--set foo: found no key or no value; wanted a.b=VALUE"),
        ("=3", "--set =3: found no key or no value"),
        ("a..b=3", "found no key or no value"),
        ("limts.deadline_s=3", "limts: found an unknown key; wanted one of"),
        ("output.url=[", "--set output.url=[: output.url: found while parsing"),
        ("limits={deadline_s: 1, deadline_s: 2}", "found this key twice, first at --set limits="),
    ],
)
def test_a_wrong_option_is_told_with_its_own_text(
    small_job: str, override: str, sentence: str
) -> None:
    """The place of the mistake is the option, not a line of the file."""
    (problem,) = problems_of(small_job, overrides=[override])
    assert sentence in problem


def test_an_option_may_not_smuggle_a_duplicate_through_a_mapping(small_job: str) -> None:
    """The same door: an unknown key inside a mapping value is found, with the option's text."""
    (problem,) = problems_of(small_job, overrides=["limits={dead: 1}"])
    assert problem.startswith("--set limits={dead: 1}: limits.dead: found an unknown key")


def test_limit_sets_the_first_rows(small_job: str) -> None:
    """And passes the same check as the file."""
    assert load_spec(small_job, source="job.yaml", limit=5).input.limit == 5
    (problem,) = problems_of(small_job, limit=0)
    assert problem == "--limit 0: input.limit: found 0; wanted a number of at least 1"


# --- {date} --------------------------------------------------------------------------------------


def test_a_date_in_a_url_needs_a_date(whole_job: str) -> None:
    """Each place is told."""
    told = problems_of(whole_job)
    assert len(told) == 2
    assert told[0].startswith("job.yaml:5: input.urls[0]: found {date} in ")
    assert told[1].endswith("and no date; wanted --date 2026-11-22")


def test_date_is_filled_in_artifact_prompt_date_and_options(small_job: str) -> None:
    """Everything that may change from day to day."""
    spec = load_spec(
        small_job,
        source="job.yaml",
        overrides=["session.artifact=m/{date}", 'prompt.date="{date}"', "input.urls=['{date}/a']"],
        date="2026-11-22",
    )
    assert spec.session.artifact == "m/2026-11-22"
    assert spec.prompt.date == "2026-11-22"
    assert spec.input.urls == ("2026-11-22/a",)


def test_a_date_without_a_place_for_it_is_fine(small_job: str) -> None:
    """A scheduler may always pass it."""
    assert load_spec(small_job, source="job.yaml", date="2026-11-22").output.url == "out"


@pytest.mark.parametrize("date", ["2026-13-01", "20261122", "today", "", "2026-W47-7"])
def test_a_date_that_is_no_day_is_refused(small_job: str, date: str) -> None:
    """Whatever Python's own parser would take."""
    (problem,) = problems_of(small_job, date=date)
    assert problem.startswith(f"--date {date}: found ")


def test_an_unknown_placeholder_is_refused(small_job: str) -> None:
    """Rather than a folder named {dat}."""
    (problem,) = problems_of(small_job.replace("url: out", 'url: "out/{dat}"'))
    assert problem == (
        'job.yaml:10: output.url: found {dat} in "out/{dat}"; '
        "wanted {date}, {yesterday} or no placeholder; did you mean {date}?"
    )


# --- Limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "dead", "rows", "is_allowed"),
    [
        ("0", 0, 0, True),
        ("0", 1, 10, False),
        ("3", 3, 3, True),
        ("3", 4, 1000, False),
        ("0.1%", 1, 1000, True),
        ("0.1%", 1, 999, False),
        ("0.7%", 7, 1000, True),
        ("0%", 0, 0, True),
        ("100%", 9, 9, True),
    ],
)
def test_dead_rows_are_counted_exactly(
    small_job: str, limit: str, dead: int, rows: int, is_allowed: bool
) -> None:
    """A percentage is a fraction, not a float."""
    overrides = [f"limits.max_dead_rows={limit}"]
    spec = load_spec(small_job, source="job.yaml", overrides=overrides)
    assert spec.limits.allows(dead, rows) is is_allowed
