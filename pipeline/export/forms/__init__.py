"""The forms of an export: each is a module with a record and its functions, and an entry in `FORMS`."""

from pipeline.config.export_config import ExportConfig, flag_of
from pipeline.errors import ConfigError
from pipeline.export.form import FILTERS, Form
from pipeline.export.forms import (
    beside,
    csv,
    diffsynth,
    hf,
    joycaption,
    jsonl,
    musubi,
    parquet,
    sd_scripts,
    sidecars,
    simpletuner,
    webdataset,
)

_TABLES = (parquet, hf, csv, jsonl)
_FILES = (webdataset, sidecars, beside)
_TRAINERS = (sd_scripts, simpletuner, musubi, diffsynth, joycaption)

FORMS: dict[str, Form] = {module.FORM.name: module.FORM for module in (*_TABLES, *_FILES, *_TRAINERS)}


def form_of(config: ExportConfig) -> Form:
    """Return the form of an export.

    Raises:
        ConfigError: there is no such form, or it does not honour an option that was given.
    """
    form = FORMS.get(config.to)
    if form is None:
        raise ConfigError(f"export: --to {config.to}: no such form; allowed: {', '.join(FORMS)}")
    honoured = {"to", *FILTERS, *form.honours}
    with_template = honoured | (form.honours_with_template if config.template is not None else set())
    ignored = sorted(flag_of(name) for name in config.model_fields_set - with_template)
    if ignored:
        allowed = [flag_of(name) for name in ExportConfig.model_fields if name in honoured - {"to"}]
        allowed += [f"{flag_of(name)} beside --template" for name in sorted(form.honours_with_template)]
        raise ConfigError(
            f"export: --to {form.name} does not honour {', '.join(ignored)}; it honours {', '.join(allowed)}. Leave "
            "the others out, or choose another form"
        )
    return form
