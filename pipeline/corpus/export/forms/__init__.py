"""The forms of a corpus export: each is a module with a record and its functions, and an entry in `FORMS`."""

from pipeline.config.corpus_export_config import CorpusExportConfig, flag_of
from pipeline.corpus.export.corpus_form import CorpusForm
from pipeline.corpus.export.forms import dantaggen, tipo_v1, tipo_v2, tokens
from pipeline.errors import ConfigError

FORMS: dict[str, CorpusForm] = {module.FORM.name: module.FORM for module in (tipo_v1, tipo_v2, dantaggen, tokens)}


def form_of(config: CorpusExportConfig) -> CorpusForm:
    """Return the form of an export.

    Raises:
        ConfigError: there is no such form, it does not honour an option that was given, or it requires another one.
    """
    form = FORMS.get(config.to)
    if form is None:
        raise ConfigError(f"export-corpus: --to {config.to}: no such form; allowed: {', '.join(FORMS)}")
    ignored = sorted(flag_of(name) for name in config.model_fields_set - form.honours - {"to"})
    if ignored:
        honoured = ", ".join(flag_of(name) for name in type(config).model_fields if name in form.honours)
        raise ConfigError(
            f"export-corpus: --to {form.name} does not honour {', '.join(ignored)}; it honours "
            f"{honoured or 'no option'}. Leave the others out, or choose another form"
        )
    missing = sorted(flag_of(name) for name in form.requires - config.model_fields_set)
    if missing:
        raise ConfigError(f"export-corpus: --to {form.name} requires {', '.join(missing)}; add it")
    return form
