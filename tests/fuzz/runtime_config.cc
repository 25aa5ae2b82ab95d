// The documents that kelp-oci reads, as bytes: config.json and the objects of it that commands take alone. What is
// accepted is printed, and what was printed is read as the same.
#include "spec/runtime_config.h"

#include "fuzz/finding.h"
#include "spec/validate.h"

using namespace kelp;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  spec::RuntimeConfig config;
  if (fuzz::accepted([&] { config = spec::parse_runtime_config(text); })) {
    const std::string printed = spec::print_runtime_config(config);
    std::string again;
    if (!fuzz::accepted([&] { again = spec::print_runtime_config(spec::parse_runtime_config(printed)); }))
      fuzz::finding("a printed configuration is refused", printed);
    if (printed != again) fuzz::finding("a printed configuration reads as another", printed + "\n" + again);
    (void)fuzz::accepted([&] { spec::validate(config); });
  }
  (void)fuzz::accepted([&] { spec::validate_process(spec::parse_process(text), "process"); });
  (void)fuzz::accepted([&] { (void)spec::parse_resources(text); });
  (void)fuzz::accepted([&] { (void)spec::parse_seccomp(text); });
  return 0;
}
