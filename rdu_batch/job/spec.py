"""The job file as frozen values: every leaf, its type, its default and what it means.

Promises: unknown keys are refused, nothing is converted silently (``1`` is no text, ``"1"`` no
number), a spec that exists has no contradictions. The JSON Schema and the messages of ``loading``
come from these classes. Does not: read YAML or know where a value was written (``loading``).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from rdu_batch.job.leaf_types import (
    Carried,
    DeadRows,
    IsoDate,
    MemoryBytes,
    NonEmpty,
    StorageOptions,
    Texts,
    TokenIds,
    WorkerCount,
)
from rdu_batch.job.spec_checks import CONTRADICTION, bytes_of, contradictions, percent_of


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    SECTION: ClassVar[str] = ""

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> _Section:
        for key, text in contradictions(self.SECTION, self.__dict__):
            place = f"{self.SECTION}.{key}" if key else self.SECTION
            raise PydanticCustomError(CONTRADICTION, "{text}", {"text": f"{place}: {text}"})
        return self


class InputSpec(_Section):
    """Which rows to read."""

    SECTION = "input"

    urls: Annotated[Texts, Field(min_length=1)]
    """Files, folders or globs of rows (.jsonl, compressed too, .parquet; by name or glob .json and
    .txt), local or of any fsspec store. {date} is filled by --date. Their order is the order of the
    rows."""

    id_field: NonEmpty | None = None
    """Field of a row that is written as "id" of its prediction; null where a row lacks it."""

    carry: Carried = ()
    """Other fields of a row to write into its prediction, with their exact JSON text."""

    limit: Annotated[int, Field(ge=1)] | None = None
    """Only the first rows, this many; --limit sets it. Empty means all."""

    since: NonEmpty | None = None
    """URL of a finished output of this job over earlier inputs, such as last night's: its
    predictions are taken over for what is unchanged, and only what is new is run. {date} is filled
    by --date."""

    copied_from: Texts = ()
    """Written by `submit`, where urls are its copies of local inputs: the urls that the job file
    named, which the job is known by."""

    storage_options: StorageOptions = Field(default_factory=dict)
    """Options of the driver that reads the inputs. Secrets as "${ENV:NAME}" only."""


class PromptSpec(_Section):
    """How a row becomes a prompt: exactly one of template, field and messages_field."""

    SECTION = "prompt"
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [way], "properties": {way: {"type": "string"}}}
                for way in ("template", "field", "messages_field")
            ]
        }
    )

    template: NonEmpty | None = None
    """Jinja template over `row`, such as "Review: {{ row.text }}". Its text is kept as it is, a
    newline at its end too (YAML: `|-` leaves that one out)."""

    field: NonEmpty | None = None
    """Field of a row whose text is the prompt."""

    messages_field: NonEmpty | None = None
    """Field of a row that holds a chat: a list of {role, content}."""

    system: NonEmpty | None = None
    """System message of every chat that does not begin with one; needs a chat template."""

    chat_template: bool = False
    """Send the prompt as a user message through the model's chat template. Always true for
    messages_field."""

    date: IsoDate | None = None
    """The day that chat templates see as today, such as 2026-11-22. {date} is filled by --date."""

    overflow: Literal["error", "truncate_left", "truncate_right"] = "error"
    """A prompt that leaves no room for max_new_tokens: error keeps it whole (and the row is dead if
    not even one token has room), truncate_left cuts its beginning, truncate_right its end. Of a
    chat, the last user message is cut. A cut prompt has at least one token of the row's own."""

    @model_serializer(mode="wrap")
    def _without_what_is_as_ever(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Digests of jobs that do not ask for it are what they were before there was an overflow.
        leaves: dict[str, Any] = serialize(self)
        if self.overflow == "error":
            leaves.pop("overflow", None)
        return leaves

    @model_validator(mode="before")
    @classmethod
    def _messages_are_a_chat(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("messages_field") is not None:
            return {"chat_template": True, **values}
        return values


class SessionSpec(_Section):
    """What generates."""

    SECTION = "session"
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["kind"], "properties": {"kind": {"const": "fake"}}},
                {"required": ["artifact"], "properties": {"artifact": {"type": "string"}}},
            ]
        }
    )

    kind: NonEmpty = "inductor"
    """Kind of session: inductor (compiled), samba or rdu_engine (SambaNova's RDU), eager (plain
    transformers), fake (no model), or the name of a plug-in."""

    artifact: NonEmpty | None = None
    """URL of the folder that `rdu-batch compile` wrote. Needed by every kind but fake. {date} is
    filled by --date."""

    threads: Annotated[int, Field(ge=1)] = 1
    """Threads inside one session. Part of what decides the output: sums differ with it."""

    storage_options: StorageOptions = Field(default_factory=dict)
    """Options of the driver that reads the artifact. Secrets as "${ENV:NAME}" only."""


class GenerationSpec(_Section):
    """How the prediction of one row is generated."""

    SECTION = "generation"

    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    """Most tokens to generate for one row."""

    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    """The first tokens of a row, this many, never end it: eos and stop_token_ids are not chosen
    among them, and a stop text that ends within them does not count."""

    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 takes the likeliest token each time; above 0 samples."""

    top_k: Annotated[int, Field(ge=1)] | None = None
    """Sample among this many likeliest tokens only."""

    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Sample among the likeliest tokens that have this probability together."""

    min_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Sample among tokens that have at least this share of the likeliest one's probability."""

    # Bounds far beyond any use: a score must stay a finite float32 whatever it is divided by.
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """Above 1 makes tokens of the prompt and of the prediction so far less likely, below 1 more
    likely; 1 is off."""

    stop: Texts = ()
    """Texts that end a prediction; they are not part of it."""

    stop_token_ids: TokenIds = ()
    """Tokens that end a prediction; their text is not part of it."""

    seed: int = 0
    """Seed of sampling; each row has its own stream, whoever runs it."""

    num_samples: Annotated[int, Field(ge=1)] = 1
    """Predictions to sample for each row. Above 1, prediction, finish_reason, num_generated_tokens
    and logprobs are lists, in the order of the samples. limits.row_timeout_s is for all of them."""

    logprobs: bool = False
    """Also write the natural log-probability of each generated token, as the model gave it, before
    temperature and everything else here."""

    overrides_field: NonEmpty | None = None
    """Field of a row that holds an object with settings of its own for that row: any key of this
    section but num_samples, logprobs and overrides_field. Rows without it keep the job's."""


class OutputSpec(_Section):
    """Where predictions go."""

    SECTION = "output"

    url: NonEmpty
    """Folder for the predictions, local or of any fsspec store. One folder holds one job. {date} is
    filled by --date."""

    format: Literal["jsonl", "jsonl.gz", "jsonl.zst", "parquet"] = "jsonl"
    """File format of the parts. Dead letters are always jsonl."""

    rows_per_shard: Annotated[int, Field(ge=1)] = 10000
    """Rows of one output file; smaller files are committed sooner."""

    single_writer: bool = False
    """True for a store that cannot create an object exactly once (see `rdu-batch probe`): you
    promise that no two runs ever work on this output at the same time."""

    storage_options: StorageOptions = Field(default_factory=dict)
    """Options of the driver that writes the output. Secrets as "${ENV:NAME}" only."""


class WorkersSpec(_Section):
    """How many sessions run at once, and what each one reserves in the Ray cluster."""

    SECTION = "workers"

    count: WorkerCount = "auto"
    """Number of workers, or auto: as many as the cluster has room for."""

    min: Annotated[int, Field(ge=1)] = 1
    """With auto: at least this many workers, even if the cluster has no room for them yet."""

    max: Annotated[int, Field(ge=1)] | None = None
    """With auto: never more workers than this; empty means no limit."""

    cpus: Annotated[float, Field(ge=0)] = 1.0
    """CPUs of one worker, as Ray counts them."""

    gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of one worker, as Ray counts them."""

    resources: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Custom Ray resources of one worker, such as {RDU: 1}."""


class LimitsSpec(_Section):
    """When to give up: on a row, on a start, on the job."""

    SECTION = "limits"

    max_dead_rows: DeadRows = 0
    """Dead letters that a complete job may have: a number, or a percentage of all rows such as
    0.1%. Above it the exit code is 5."""

    attempts_per_row: Annotated[int, Field(ge=1)] = 3
    """How often a row may kill or stall a session before it becomes a dead letter."""

    row_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """Seconds that one row may take."""

    session_memory_bytes: MemoryBytes | None = None
    """Memory that one session may take for itself: bytes, or a text such as 8GiB. A row that makes
    it take more is treated as one that kills its session. Mapped files (weights) do not count.
    Empty means no limit but the machine's. Needs Linux; has no effect without Ray."""

    start_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds until a first session must be ready."""

    deadline_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which this run stops and exits with 12; a rerun resumes. Empty means never."""

    @property
    def session_memory_limit_bytes(self) -> int | None:
        """``session_memory_bytes`` as a number; None for no limit."""
        limit = self.session_memory_bytes
        return bytes_of(limit) if isinstance(limit, str) else limit

    def allows(self, dead: int, rows: int) -> bool:
        """Whether ``dead`` dead letters among ``rows`` rows are within ``max_dead_rows``."""
        if isinstance(self.max_dead_rows, int):
            return dead <= self.max_dead_rows
        # Exact: 0.1% of 1000 rows is one row, whatever a float makes of 0.001.
        return dead <= (percent_of(self.max_dead_rows) or Fraction(0)) * rows


class JobSpec(_Section):
    """A batch inference job: which rows, how they become prompts, what generates, where to."""

    version: Literal[1]
    """Version of the job file format."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    """Name of the job for people and schedulers: lower case letters, digits and hyphens."""

    input: InputSpec
    prompt: PromptSpec
    session: SessionSpec
    generation: GenerationSpec = Field(default_factory=GenerationSpec)
    output: OutputSpec
    workers: WorkersSpec = Field(default_factory=WorkersSpec)
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
