"""Write every page, or part of one, that comes out of the code: ``make docs``."""

from docs import cli_page, code_tables, settings_page

for page in (code_tables, settings_page, cli_page):
    page.write()
