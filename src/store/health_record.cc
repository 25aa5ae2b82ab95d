#include "store/health_record.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "sys/lock.h"

namespace kelp::store {

void refuse_newer_health(const Layout& layout, std::string_view id) {
  const std::string path = layout.container(id) + "/health.json";
  const auto text = sys::read_small_file(path, 16U << 20U);
  if (!text) return;
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  if (!json.is_object()) return;  // damaged: the next probe writes it again
  const auto schema = json.find("schema");
  if (schema != json.end() && schema->is_number() && *schema > 1) throw_error("{}: written by a newer kelp", path);
}

}  // namespace kelp::store
