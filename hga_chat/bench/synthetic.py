"""A model of random weights, and a text for it."""

from hga_chat.models import geometry_of
from hga_engine.config import DeviceName
from hga_engine.model.synthetic import Topics, synthetic_tokens
from hga_engine.opening import LoadedModel, synthetic_model


def synthetic_text(
    name: str, device: DeviceName, tokens: int, with_topics: bool
) -> tuple[LoadedModel, list[int]]:
    """Random weights of a model's geometry, and tokens to read.

    Args:
        name: of the model whose geometry it is.
        device: where it is to compute.
        tokens: of the text.
        with_topics: whether selections shall change slowly along the text, as those of trained
            models do; without, every query selects anew.

    Raises:
        ModelMissingError: there is no model of that name, or its geometry is not known.
    """
    config, topics = geometry_of(name), Topics() if with_topics else None
    model = synthetic_model(f"{name} (random weights)", config, device, topics)
    return model, synthetic_tokens(config.vocab_size - 2, tokens, topics=topics)
