// What registries say besides documents: challenges, errors, places to go on at; and the files that tell how to talk to
// them. The first byte chooses.
#include "base/base64.h"
#include "fuzz/finding.h"
#include "image/auth.h"
#include "image/policy.h"
#include "image/registry.h"
#include "image/url.h"

using namespace kelp;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 6) {
    case 0:
      for (const image::Challenge& challenge : image::parse_challenges(text)) {
        if (challenge.scheme.empty()) fuzz::finding("a challenge without a scheme", text);
      }
      break;
    case 1: {
      const std::string reason = image::registry_error_text(text);
      for (const char c : reason) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) fuzz::finding("an error that can paint", reason);
      }
      break;
    }
    case 2: {
      const std::string next = image::resolve_url("https://registry.example:5000/v2/app/blobs/uploads/1", text);
      const std::string origin = image::url_origin(next);
      // A relative place must stay with the registry: credentials go there.
      if (text.find(':') == std::string_view::npos && !text.starts_with("//") && !text.starts_with("/\\") &&
          origin != "https://registry.example:5000")
        fuzz::finding("a relative place on another host", next);
      if (origin.find('@') != std::string::npos || origin.find('\n') != std::string::npos)
        fuzz::finding("an origin that is none", origin);
      break;
    }
    case 3:
      if (const auto bytes = base64_decode(text)) {
        const auto again = base64_decode(base64_encode(*bytes));
        if (!again || *again != *bytes) fuzz::finding("other bytes in base64", text);
      }
      break;
    case 4:
      (void)fuzz::accepted([&] {
        std::string helper;
        (void)image::credentials_in(text, "auth.json", "registry.example", "team/app", helper);
      });
      break;
    default:
      (void)fuzz::accepted([&] {
        image::RegistryPolicy policy;
        policy.add(text, "registries.conf");
        for (const char* name : {"app", "registry.example/team/app:1", "docker.io/library/app"}) {
          for (const spec::ImageName& candidate : policy.resolve(name)) (void)policy.sources(candidate);
        }
      });
  }
  return 0;
}
