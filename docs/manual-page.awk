# Mends a manual page of swift-argument-parser's generate-manual: paragraphs instead of empty lines, examples and tables as they are written,
# no subcommands where `help` is the only one.
function close_block() { if (literal) { print ".Ed"; literal = 0 } }
FNR == NR { if (/^\.It Em / && $3 != "help") subcommands = 1; next }
/^\.Ar subcommand$/ && !subcommands { next }
/^\.It Em help$/ { skipping = !subcommands }
skipping { if (/^\.It Ar subcommands/) ending = 1; if (/^\.El$/ && ending) { skipping = ending = 0 } ; next }
/^  / { if (!literal) { print ".Bd -literal"; literal = 1 } print; next }
{ close_block() }
/^$/ { print ".Pp"; next }
/^[A-Za-z ]+:$/ { sub(/:$/, ""); print ".Sy " $0; next }
{ print }
END { close_block() }
