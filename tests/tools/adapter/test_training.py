from dataclasses import replace

import pytest
import torch
import transformers

from hga_engine.model.directory import DirectorySource
from hga_engine.model.files import ModelFiles
from hga_engine.model.load import load_model
from tools.adapter.adapter_file import quantise, read_adapter, to_go_on, write_adapter
from tools.adapter.batches import Batch, TrainingPlan
from tools.adapter.checkable import PROMPTS
from tools.adapter.concentration import missed_share
from tools.adapter.losses import cross_entropies, divergences
from tools.adapter.model import ROPE_BASE, Network, merge, new_adapter, to_base
from tools.adapter.train import Trainer

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("single_thread")


@pytest.fixture(scope="module")
def reference(tmp_path_factory, single_thread):
    """A tiny model of the same architecture, and the path of its checkpoint."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=8,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    directory = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(directory)
    return model, directory


@pytest.fixture
def base(reference):
    return to_base(DirectorySource(reference[1]), CPU, torch.float32)


def trained(base, seed=1):
    generator = torch.Generator().manual_seed(seed)
    factors = new_adapter(base)
    return {
        name: factor + 0.05 * torch.randn(factor.shape, generator=generator)
        for name, factor in factors.items()
    }


def test_network_gives_the_logits_of_transformers(reference, base):
    ids = torch.randint(97, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference[0](ids).logits
        hidden = Network(base.config, 10_000.0).hidden(base.rounded, ids)
    assert (hidden @ base.weights["embedding"].T - expected).abs().max() < 1e-4


def test_network_continues_from_a_cache(base):
    ids = torch.randint(97, (1, 40), generator=torch.Generator().manual_seed(2))
    network, cache = Network(base.config, 10_000.0), []
    whole = network.hidden(base.rounded, ids)
    parts = [network.hidden(base.rounded, part, cache) for part in ids.split([25, 14, 1], 1)]
    assert (torch.cat(parts, 1) - whole).abs().max() < 1e-4


def test_a_new_adapter_changes_nothing_and_is_merged_as_in_the_product(base, reference, tmp_path):
    for name, weight in merge(base, new_adapter(base)).items():
        assert torch.equal(weight, base.weights[name])
    write_adapter(tmp_path / "adapter.safetensors", trained(base))
    merged = merge(base, read_adapter(tmp_path / "adapter.safetensors", CPU))
    files = ModelFiles("tiny", reference[1], None, (tmp_path / "adapter.safetensors",))
    loaded = load_model(files, torch.float32)
    for number, layer in enumerate(loaded.layers):
        assert (layer.down - merged[f"{number}.down_proj"]).abs().max() < 1e-6
        assert (layer.output - merged[f"{number}.o_proj"]).abs().max() < 1e-6


def test_int8_loses_little_of_what_was_learned(base):
    factors = trained(base)
    stored = quantise(factors)
    for name in {name.rpartition(".")[0] for name in factors}:
        learned = factors[f"{name}.b"] @ factors[f"{name}.a"]
        kept = (stored[f"{name}.b"] * stored[f"{name}.scale"]) @ stored[f"{name}.a"].float()
        assert stored[f"{name}.a"].dtype == stored[f"{name}.b"].dtype == torch.int8
        assert (kept - learned).norm() < 0.02 * learned.norm()


def test_losses_equal_those_of_all_logits_at_once(base):
    generator = torch.Generator().manual_seed(3)
    hidden, other = (torch.randn(50, 48, generator=generator) for _ in range(2))
    table, targets = base.weights["embedding"], torch.arange(50)
    ours, theirs = (part @ table.T for part in (hidden, other))
    expected = torch.nn.functional.cross_entropy(ours, targets, reduction="none")
    assert torch.allclose(cross_entropies(hidden, table, targets), expected, atol=1e-5)
    expected = (theirs.softmax(-1) * (theirs.log_softmax(-1) - ours.log_softmax(-1))).sum(-1)
    assert torch.allclose(divergences(hidden, table, other), expected, atol=1e-4)
    assert divergences(hidden, table, hidden).abs().max() < 1e-5


class _Same:
    """Returns the same batch every time."""

    def __init__(self, batch):
        self.batch = batch

    def next(self, share, device):
        return self.batch


def test_training_learns_the_answers_and_stays_near_the_base_model(base, tmp_path):
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(97, (2, 64), generator=generator)
    text, answers = torch.zeros(2, 64), torch.zeros(2, 64)
    text[:, 1:50] = 1
    answers[:, 50:] = 1
    batch = Batch(ids, text, answers, ids[:, :32], text[:, :32])
    plan = TrainingPlan(tmp_path, tmp_path, tmp_path, 1, 1, batch_tokens=128, learning_rate=1e-2)
    factors = {name: factor.requires_grad_() for name, factor in new_adapter(base).items()}
    optimizer = torch.optim.AdamW(factors.values(), plan.learning_rate)
    trainer = Trainer(plan, base, factors, optimizer, 1)
    rows = [trainer.step(_Same(batch), batch, 0.1, 0) for _ in range(25)]
    assert rows[-1]["answer_nats"] < 0.5 * rows[0]["answer_nats"]
    assert rows[-1]["short_divergence"] < 1.0
    assert all(factor.abs().max() > 0 for factor in factors.values())


def test_gradients_equal_those_of_the_plain_sum_of_losses(base, tmp_path):
    ids = torch.randint(97, (1, 48), generator=torch.Generator().manual_seed(5))
    weights = torch.ones(1, 48)
    batch = Batch(ids, weights, weights.clone(), ids[:, :16], weights[:, :16])
    plan = TrainingPlan(tmp_path, tmp_path, tmp_path, 1, 1, batch_tokens=48, batches=1)
    factors = {name: factor.requires_grad_() for name, factor in trained(base).items()}
    Trainer(plan, base, factors, torch.optim.AdamW(factors.values()), 1).backward(batch)
    gradients = {name: factor.grad.clone() for name, factor in factors.items()}
    for factor in factors.values():
        factor.grad = None

    table = base.weights["embedding"]
    far, near = Network(base.config, ROPE_BASE), Network(base.config, base.config.rope_base)
    merged = merge(base, factors)
    logits = far.hidden(merged, ids)[0, :-1] @ table.T
    nats = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
    ours = (far.hidden(merged, ids[:, :16])[0, :-1] @ table.T).log_softmax(-1)
    theirs = (near.hidden(base.rounded, ids[:, :16])[0, :-1] @ table.T).log_softmax(-1)
    apart = (theirs.exp() * (theirs - ours)).sum(-1).mean()
    (nats * (1 + plan.text_weight) + plan.short_weight * apart).backward()
    for name, factor in factors.items():
        assert (factor.grad - gradients[name]).norm() < 1e-3 * factor.grad.norm()


def test_thirty_prompts_tell_right_from_wrong():
    assert len({one.prompt for one in PROMPTS}) == 30
    assert all(not one.is_right("I am not sure.") for one in PROMPTS)
    told = {
        ("What is 7 + 5?", "It is 12."): True,
        ("Reply with the single word yes.", "Yes."): True,
        ("List the four seasons.", "Spring, summer, fall and winter."): True,
        ("List the four seasons.", "Summer, winter, spring and Monday."): False,
    }
    prompts = {one.prompt: one for one in PROMPTS}
    for (prompt, answer), expected in told.items():
        assert prompts[prompt].is_right(answer) == expected


def test_training_starts_from_what_an_adapter_does(base):
    factors = trained(base)
    ready = to_go_on(
        {name: f * (50 if name.endswith("a") else 0.02) for name, f in factors.items()}
    )
    for name in {name.rpartition(".")[0] for name in factors}:
        expected = factors[f"{name}.b"] @ factors[f"{name}.a"]
        torch.testing.assert_close(ready[f"{name}.b"] @ ready[f"{name}.a"], expected)
    torch.testing.assert_close(
        ready["0.q_proj.a"].norm(dim=1).mean(),
        new_adapter(base)["0.q_proj.a"].norm(dim=1).mean(),
        rtol=0.1,
        atol=0,
    )


def test_the_missed_share_of_uniform_attention():
    """Of 128 groups 8 are sinks and 36 recent; 48 of the other 84 are attended."""
    queries, keys = torch.zeros(1, 6, 2048, 8), torch.randn(1, 2, 2048, 8)
    missed = missed_share(queries, keys, torch.tensor([2047]))
    assert float(missed) == pytest.approx((84 - 48) * 16 / 2048)


def test_training_draws_attention_together(base, tmp_path):
    ids = torch.randint(97, (1, 2048), generator=torch.Generator().manual_seed(6))
    nothing = torch.zeros(1, 2048)
    batch = Batch(ids, nothing, nothing, ids[:, :16], nothing[:, :16])
    plan = TrainingPlan(tmp_path, tmp_path, tmp_path, 1, 1, batch_tokens=2048, batches=1)
    plan = replace(plan, learning_rate=3e-2, concentration_weight=1.0)
    factors = {name: factor.requires_grad_() for name, factor in new_adapter(base).items()}
    trainer = Trainer(plan, base, factors, torch.optim.AdamW(factors.values()), 1)
    rows = [trainer.step(_Same(batch), batch, 0.1, 0) for _ in range(15)]
    assert rows[-1]["missed_share"] < 0.5 * rows[0]["missed_share"]
