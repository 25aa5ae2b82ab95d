// The compiled part of fmt, made here: Debian ships libfmt as a shared object only, and a static program (kelp-monitor)
// or one that must start in a millisecond cannot use that. In header-only mode fmt's functions are weak definitions of
// the same names that every other file refers to; each one that is taken by address below is emitted in this file.
#define FMT_HEADER_ONLY 1
#include <fmt/format.h>

namespace kelp::detail {

using Args = fmt::format_args;
// Never called: the addresses alone make the compiler emit the functions.
extern std::string (*const fmt_vformat)(fmt::string_view, Args);
std::string (*const fmt_vformat)(fmt::string_view, Args) = &fmt::vformat;

}  // namespace kelp::detail
