"""How each option of `auth_mtls` shows; see `../test_no_inert_option.py`."""

_FILE = "middlewares/auth/test_auth_mtls.py"
_TLS = {"by": f"{_FILE}::test_a_certificate_of_the_tls_layer_establishes_its_caller", "word": "CALLER"}

REQUIRED = {"holders": [{"name": ["*"]}], "optional": True}

ROWS = {
    "auth_mtls.form": {"by": f"{_FILE}::test_a_trusted_proxy_tells_the_certificate"},
    "auth_mtls.header": {"by": f"{_FILE}::test_a_trusted_proxy_tells_the_certificate"},
    "auth_mtls.holders": {"by": f"{_FILE}::test_the_subject_is_the_name_that_was_chosen"},
    "auth_mtls.holders.name": {"by": f"{_FILE}::test_the_subject_is_the_name_that_was_chosen"},
    "auth_mtls.holders.roles": _TLS,
    "auth_mtls.holders.scopes": _TLS,
    "auth_mtls.holders.tenant": _TLS,
    "auth_mtls.holders.tenants": _TLS,
    "auth_mtls.name_from": {"by": f"{_FILE}::test_the_subject_is_the_name_that_was_chosen"},
    "auth_mtls.optional": {"by": f"{_FILE}::test_an_optional_stage_leaves_who_shows_none_to_the_next"},
    "auth_mtls.prefix": {"by": f"{_FILE}::test_the_subject_is_the_name_that_was_chosen"},
    "auth_mtls.trusted_proxies": {"by": f"{_FILE}::test_from_anybody_else_the_header_is_nothing"},
}
