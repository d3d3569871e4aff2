"""The shipped catalog of language models: counts agree with what is published, names are unique."""

import shutil
from pathlib import Path

import pytest

from tokopt.catalog.llms import CountDefinition, LlmRow, load_llm, load_llms, read_llm_row, spellings
from tokopt.errors import CatalogError, InputError
from tokopt.perf.counts import parameter_counts

CATALOG = Path(__file__).parents[3] / "catalogs" / "llms"
FILES = sorted(CATALOG.glob("*.yaml"))
LLMS = load_llms(CATALOG)

MEASURED = [
    "MiniMaxAI/MiniMax-M2.5",
    "Mistral-7B-Instruct-v0.2",
    "Qwen/Qwen2-72B",
    "Qwen/Qwen2-7B",
    "Qwen/Qwen3-235B-A22B",
    "Qwen/Qwen3-235B-A22B-FP8",
    "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-32B",
    "Qwen/Qwen3.5-397B-A17B",
    "amd/Llama-3.1-405B-Instruct-FP8-KV",
    "amd/Llama-3.1-70B-Instruct-FP8-KV",
    "deepseek-ai/DeepSeek-R1",
    "deepseek-ai/DeepSeek-R1-0528",
    "meta-llama/Llama-2-13b-hf",
    "meta-llama/Llama-2-70b-chat-hf",
    "meta-llama/Llama-2-70b-hf",
    "meta-llama/Llama-2-7b-hf",
    "meta-llama/Llama-3.1-405B-Instruct",
    "meta-llama/Llama-3.1-70B",
    "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.3-70B-Instruct",
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "meta-llama/Meta-Llama-3-70B",
    "meta-llama/Meta-Llama-3-8B",
    "mistralai/Mistral-7B-v0.1",
    "mistralai/Mistral-7B-v0.3",
    "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "mistralai/Mixtral-8x7B-v0.1",
    "moonshotai/Kimi-K2.5",
    "nvidia/DeepSeek-R1-NVFP4",
    "nvidia/Llama-3.1-8B-Instruct-FP8",
    "nvidia/Qwen3-32B-NVFP4",
    "openai/gpt-oss-120b",
    "openai/gpt-oss-20b",
    "zai-org/GLM-5",
    "CodeLlama-13b-hf",
    "huggyllama/llama-7b",
    "huggyllama/llama-13b",
    "Qwen/Qwen1.5-7B",
    "BAAI/Aquila-7B",
    "Deci/DeciLM-7B",
    "EleutherAI/gpt-j-6b",
    "bigscience/bloom",
    "bigscience/bloom-7b1",
    "facebook/opt-13b",
    "facebook/opt-6.7b",
    "google/gemma-1.1-7b-it",
    "google/gemma-7b",
]


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def row(request: pytest.FixtureRequest) -> LlmRow:
    return read_llm_row(request.param)


def counted(row: LlmRow) -> tuple[float, float]:
    """Total and active parameters as the publisher of the row counts them."""
    counts = parameter_counts(LLMS[row.name])
    left_out = {
        CountDefinition.ALL: 0,
        CountDefinition.WITHOUT_EMBEDDING: counts.embedding,
        CountDefinition.WITHOUT_EMBEDDING_AND_HEAD: counts.embedding + counts.head,
    }
    total = counts.total - left_out[row.published_total_definition] + (row.published_beside_parameters or 0)
    return total, counts.active - left_out[row.published_active_definition]


def test_total_parameters_agree_with_published(row: LlmRow) -> None:
    total, _ = counted(row)
    tolerance = max(0.01 * row.published_total_parameters, row.published_total_resolution)
    assert total == pytest.approx(row.published_total_parameters, abs=tolerance)


def test_active_parameters_agree_with_published(row: LlmRow) -> None:
    _, active = counted(row)
    tolerance = max(0.01 * row.published_active_parameters, row.published_active_resolution)
    assert active == pytest.approx(row.published_active_parameters, abs=tolerance)


def test_resolution_is_no_excuse(row: LlmRow) -> None:
    """A stored resolution never lets a count be more than 4 % (half a unit of two digits: 12B) off."""
    assert row.published_total_resolution <= 0.01 * row.published_total_parameters
    assert row.published_active_resolution <= 0.042 * row.published_active_parameters


def test_layers_are_those_of_the_config(row: LlmRow) -> None:
    text = row.config.get("text_config", row.config)
    assert LLMS[row.name].layer_count == text.get("num_hidden_layers", text.get("n_layer"))
    assert LLMS[row.name].family == row.config["model_type"]


def test_rows_say_where_they_come_from(row: LlmRow) -> None:
    assert row.source and row.published_source and row.published_note
    assert row.observed_on.isoformat() == LLMS[row.name].observed_on


def test_spellings_are_unique() -> None:
    said = [name.casefold() for llm in LLMS.values() for name in {llm.name, *llm.aliases}]
    assert len(said) == len(set(said))


@pytest.mark.parametrize("name", MEASURED)
def test_measured_models_are_found(name: str) -> None:
    assert name.casefold() in spellings(LLMS.values())


@pytest.mark.parametrize("name", ["deepseek-r1", "DEEPSEEK-AI/deepseek-r1-0528", "nvidia/DeepSeek-R1-NVFP4"])
def test_one_model_by_any_of_its_names(name: str) -> None:
    assert load_llm(CATALOG, name) == LLMS["deepseek-r1"]


def test_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(InputError, match=r"unknown language model 'deepseek-r2'; did you mean .*deepseek-r1"):
        load_llm(CATALOG, "deepseek-r2")
    with pytest.raises(InputError):
        load_llm(CATALOG, "")


@pytest.mark.parametrize("alias", ["llama-3-8b", "META-LLAMA/meta-llama-3-8b"])
def test_a_name_taken_twice_is_refused(tmp_path: Path, alias: str) -> None:
    shutil.copy(CATALOG / "llama-3-8b.yaml", tmp_path)
    text = (CATALOG / "qwen3-8b.yaml").read_text().replace("Qwen/Qwen3-8B-AWQ", alias)
    (tmp_path / "qwen3-8b.yaml").write_text(text)
    with pytest.raises(CatalogError, match=r"qwen3-8b\.yaml: aliases: '.*llama-3-8b' is already taken by llama-3-8b"):
        load_llms(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: qwen3-8b\n", "name: qwen\n", "name: 'qwen' must be the name of the file"),
        ("native_precision: bf16", "native_precision: fp6", "native_precision: "),
        ("precisions: [bf16, ", "precisions: [", "precisions: the native precision bf16"),
        ("published_total_parameters: 8.2e+9", "published_total_parameters: many", "published_total_parameters: "),
        ("published_total_parameters: 8.2e+9", "published_total_parameters: '8.2e9'", "published_total_parameters: "),
        ("observed_on: 2026-11-23", "observed_on: lately", "observed_on: "),
        ("  hidden_size: 4096\n", "", "config: hidden_size: missing"),
        ("  hidden_size: 4096\n", "  hidden_size: -1\n", "config: hidden_size: a whole number"),
        ("\nnote: ", "\nremark: ", "missing"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (CATALOG / "qwen3-8b.yaml").read_text()
    assert old in text
    (tmp_path / "qwen3-8b.yaml").write_text(text.replace(old, new))
    with pytest.raises(CatalogError) as caught:
        load_llms(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'qwen3-8b.yaml'}: ") and said in message and "\n" not in message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="nowhere"):
        load_llms(tmp_path / "nowhere")


def test_minimax_ships_no_prediction_modules() -> None:
    assert LLMS["minimax-m2.5"].mtp_layers == 0
    assert LLMS["deepseek-r1"].mtp_layers == 1


@pytest.mark.parametrize("aliases", ["{nvfp4: int8}", "{bf16: fp8}"])
def test_what_a_precision_is_called_by_mistake_must_stand_for_a_real_one(tmp_path: Path, aliases: str) -> None:
    text = (CATALOG / "gpt-oss-20b.yaml").read_text()
    (tmp_path / "gpt-oss-20b.yaml").write_text(text.replace("{nvfp4: mxfp4}", aliases))
    with pytest.raises(CatalogError, match=r"precision_aliases: .* must stand for one of precisions"):
        read_llm_row(tmp_path / "gpt-oss-20b.yaml")
