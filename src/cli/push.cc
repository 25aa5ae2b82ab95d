#include <memory>

#include "base/error.h"
#include "cli/command_actions.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/registry_options.h"
#include "engine/registries.h"
#include "store/image_lists.h"
#include "sys/lock.h"

namespace kelp::cli {
namespace {

struct PushCommand {
  engine::PushOptions push;
  std::string digest_file;
  bool quiet = false, remove_signatures = false, content_trust = false, remove = false;
};

int push(Invocation& invocation, const PushCommand& values) {
  const std::string& image = invocation.arguments[0];
  const std::string destination = invocation.arguments.size() > 1 ? invocation.arguments[1] : "";
  ProgressView progress(values.quiet);
  const std::string digest =
      engine::push_image(invocation.context, image, destination, values.push, progress.callback());
  progress.finish();
  if (!values.digest_file.empty()) sys::replace_file(values.digest_file, digest, 0644);
  if (values.remove) store::remove_list(invocation.context.layout, image);
  return 0;
}

void add_push_options(OptionSet& options, PushCommand& values) {
  add_access_options(options, values.push.access, {.creds = true, .retry = true});
  options.text("format,f", values.push.format, "FORMAT", "kind of the manifest")
      .one_of({"oci", "v2s2"})
      .shows("as kept");
  options.text("compression-format", values.push.compression_format, "FORMAT", "how layers are compressed")
      .one_of({"gzip", "zstd"})
      .shows("as kept");
  options.number("compression-level", values.push.compression_level, "N", "level of the compression");
  options.flag("force-compression", values.push.force_compression,
               "also layers that are compressed in the other format");
  options.text("digestfile", values.digest_file, "FILE", "where to write the digest").complete(Complete::file);
  options.flag("quiet,q", values.quiet, "do not show the progress");
  // An image in the store has no signatures, so none is ever pushed; there is no Notary either.
  options.flag("remove-signatures", values.remove_signatures, "push no signatures; images are kept without any");
}

}  // namespace

void add_access_options(OptionSet& options, engine::RegistryAccess& access, const AccessOptions& which) {
  options.text("authfile", access.authfile, "FILE", "credentials of registries").complete(Complete::file);
  options.text("cert-dir", access.cert_dir, "DIR", "certificates for the registry").complete(Complete::directory);
  options.flag("tls-verify", access.tls_verify, "insist on a valid certificate of the registry").shows("true");
  if (which.creds) options.text("creds", access.creds, "USER[:PASSWORD]", "credentials for this command");
  if (which.retry) {
    options.number("retry", access.retry, "N", "how often a failed transfer is tried again");
    options.text("retry-delay", access.retry_delay, "DURATION", "time between two tries");
  }
}

Action define_push(OptionSet& options) {
  auto values = std::make_shared<PushCommand>();
  options.arguments("IMAGE [DESTINATION]", 1, 2, Complete::image);
  add_push_options(options, *values);
  options.flag("disable-content-trust", values->content_trust, "there is none to disable").hide();
  options.describe(
      "The destination is a name in a registry, or oci:, oci-archive:, docker-archive: or dir: with a path.");
  return [values](Invocation& invocation) { return push(invocation, *values); };
}

Action define_manifest_push(OptionSet& options) {
  auto values = std::make_shared<PushCommand>();
  options.arguments("LIST [DESTINATION]", 1, 2, Complete::image);
  add_push_options(options, *values);
  options.flag("all", values->push.all, "the images of the index too").shows("true");
  options.flag("rm", values->remove, "remove the index afterwards");
  return [values](Invocation& invocation) {
    store::require_list(invocation.context.layout, invocation.arguments[0]);
    return push(invocation, *values);
  };
}

}  // namespace kelp::cli
