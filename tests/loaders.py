"""Steps by options in one line, as tests name them; `split_options` deals them to the parts that a
loader takes."""

from dataclasses import fields

from stockpot.stages.loader.assembly import Assembly
from stockpot.stages.loader.data_batches import Batches
from stockpot.stages.loader.options import Delivery, Form, Schedule, Source
from stockpot.stages.loader.steps import Steps
from stockpot.stages.loader.steps_of import steps_of
from stockpot.stages.pack.layers import Weights

PARTS = (Weights, Form, Schedule, Delivery)


def split_options(options):
    """(form, schedule, delivery) of flat options; what belongs to none is refused."""
    known = {field.name for part in PARTS for field in fields(part)} - {"weights"}
    assert options.keys() <= known, options.keys() - known
    weights, form, schedule, delivery = (
        {field.name: options[field.name] for field in fields(part) if field.name in options}
        for part in PARTS
    )
    return Form(weights=Weights(**weights), **form), Schedule(**schedule), Delivery(**delivery)


def flat_options(form, schedule, delivery):
    """The other way round."""
    found = {}
    for part in (form.weights, form, schedule, delivery):
        found |= {
            field.name: getattr(part, field.name)
            for field in fields(part)
            if field.name != "weights"
        }
    return found


def read_steps(reader, order=None, *, loads=None, member=None, **options):
    """Steps of a pack artifact."""
    return steps_of(Source.from_reader(reader, order, loads), *split_options(options), member)


def record_steps(
    records, *, store_key="0" * 32, split="train", order=None, loads=None, member=None, **options
):
    """Steps of records."""
    return steps_of(
        Source(records, store_key, split, order, loads), *split_options(options), member
    )


def assembled(records, make, *, store_key="0" * 32, split="train", **options):
    """Steps of records by the assembler that `make(assembly of whole records)` gives."""
    form, schedule, delivery = split_options(options)
    transfer = delivery.transfer()
    base = Assembly(records, form, transfer)
    return Steps(Source(records, store_key, split), make(base), transfer, schedule, delivery)


def record_batches(
    records, *, store_key="0" * 32, split="train", order=None, loads=None, layers=None, **options
):
    """Batches of records, as torch_geometric `Data`."""
    source = Source(records, store_key, split, order, loads)
    return Batches(
        source, *split_options({"layers": layers or 1, **options}), trimmed=layers is not None
    )
