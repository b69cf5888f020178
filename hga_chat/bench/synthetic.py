"""Makes a model with random weights, and a text for it."""

from hga_chat.models import facts_of, geometry_of
from hga_engine.config import DeviceName
from hga_engine.model.synthetic import Topics, synthetic_tokens
from hga_engine.opening import LoadedModel, synthetic_model


def synthetic_text(
    name: str, device: DeviceName, tokens: int, with_topics: bool
) -> tuple[LoadedModel, list[int]]:
    """Return random weights with a model's geometry, and tokens to prefill.

    Args:
        name: name of the model with the geometry.
        device: where to compute.
        tokens: length of the text.
        with_topics: whether selections change slowly along the text, as in trained models;
            otherwise every query selects other groups.

    Raises:
        ModelMissingError: no model has that name, or its geometry is not known.
    """
    config, topics = geometry_of(name), Topics() if with_topics else None
    facts = facts_of(name)
    packed = facts is not None and facts.is_q4_k_m
    model = synthetic_model(f"{name} (random weights)", config, device, topics, packed=packed)
    return model, synthetic_tokens(config.vocab_size - 2, tokens, topics=topics)
