// The emulated kernels as a Python module, on numpy arrays; emulated.py calls it. Arrays must be contiguous, and
// bfloat16 ones come as uint16.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../csrc/cuda/forms.h"
#include "../../csrc/cuda/multiscale_pseudo_label.cuh"
#include "../../csrc/cuda/patch_mask.cuh"
#include "../../csrc/cuda/uniform.cuh"
#include "../../csrc/cuda/upsample_cross_entropy.cuh"
#include "emulator.h"

namespace py = pybind11;
using namespace maskmatch;
using namespace maskmatch::cuda;

namespace {

using Array = py::array;
using OptionalArray = std::optional<py::array>;

uint64_t thread_order = 0;
emulator::Counts total{};

// Collects the arrays of a launch; the kernels may touch nothing else.
class Arrays {
 public:
  template <class Element>
  Element* add(const Array& array) {
    void* data = const_cast<void*>(array.data());
    ranges_.push_back({data, static_cast<size_t>(array.nbytes()), static_cast<size_t>(array.itemsize())});
    return static_cast<Element*>(data);
  }
  template <class Element>
  Element* add(const OptionalArray& array) {
    return array ? add<Element>(*array) : nullptr;
  }
  void add(std::vector<LossTotals>& totals) {
    ranges_.push_back({totals.data(), totals.size() * sizeof(LossTotals), 4});
  }

  template <class Launch>
  void run(const Launch& launch) const {
    emulator::reset(ranges_.data(), ranges_.size(), thread_order);
    if (launch() != cudaSuccess) throw std::runtime_error("the launch failed");
    const emulator::Counts counts = emulator::counts();
    total.sectors_loaded += counts.sectors_loaded;
    total.sectors_stored += counts.sectors_stored;
    total.loads += counts.loads;
    total.stores += counts.stores;
    total.specials += counts.specials;
    total.blocks = std::max(total.blocks, counts.blocks);
  }

 private:
  std::vector<emulator::Range> ranges_;
};

ElementType element_type(const Array& array) {
  if (array.dtype().is(py::dtype::of<uint8_t>())) return ElementType::kUint8;
  if (array.dtype().is(py::dtype::of<uint16_t>())) return ElementType::kBFloat16;
  return array.itemsize() == 2 ? ElementType::kHalf : ElementType::kFloat;
}

void patch_mask(Array images, std::vector<int64_t> shape, bool channels_last, int patch_size, int64_t hidden,
                Array seeds, int strategy, std::vector<float> scale, std::vector<float> bias, std::vector<float> fill,
                Array output, Array grid) {
  Arrays arrays;
  PatchMaskArgs args{};
  args.images = arrays.add<void>(images);
  args.type = element_type(images);
  args.channels_last = channels_last;
  args.count = shape[0];
  args.channels = static_cast<int32_t>(shape[1]);
  args.height = static_cast<int32_t>(shape[2]);
  args.width = static_cast<int32_t>(shape[3]);
  args.patch_size = patch_size;
  args.rows = static_cast<int32_t>(grid.shape(1));
  args.columns = static_cast<int32_t>(grid.shape(2));
  args.hidden = hidden;
  args.strategy = static_cast<Strategy>(strategy);
  args.seeds = arrays.add<int64_t>(seeds);
  args.grid = arrays.add<bool>(grid);
  args.output = arrays.add<void>(output);
  std::copy(scale.begin(), scale.end(), args.scale);
  std::copy(bias.begin(), bias.end(), args.bias);
  std::copy(fill.begin(), fill.end(), args.fill);
  arrays.run([&] { return launch_patch_mask(args, nullptr); });
}

void multiscale_pseudo_label(std::vector<Array> logits, std::vector<bool> flipped, std::vector<float> weights,
                             bool average_probability, bool align_corners, Array label, Array confidence) {
  Arrays arrays;
  PseudoLabelArgs args{};
  args.scale_count = static_cast<int>(logits.size());
  args.type = element_type(logits[0]);
  args.count = logits[0].shape(0);
  args.classes = static_cast<int>(logits[0].shape(1));
  args.height = static_cast<int>(label.shape(1));
  args.width = static_cast<int>(label.shape(2));
  args.average_probability = average_probability;
  for (size_t s = 0; s < logits.size(); ++s) {
    args.scales[s] = {arrays.add<void>(logits[s]), bilinear(logits[s].shape(2), args.height, align_corners),
                      bilinear(logits[s].shape(3), args.width, align_corners), weights[s], flipped[s]};
  }
  args.label = arrays.add<uint8_t>(label);
  args.confidence = arrays.add<float>(confidence);
  arrays.run([&] { return launch_multiscale_pseudo_label(args, nullptr); });
}

void upsample_cross_entropy(int mode, Array logits, Array target, OptionalArray confidence, float threshold,
                            OptionalArray pixel_weight, OptionalArray class_weight, int64_t ignore_index,
                            float label_smoothing, bool align_corners, int normalize, OptionalArray given_divisor,
                            OptionalArray grad_output, OptionalArray log_sum, OptionalArray pixel_loss,
                            OptionalArray gradient, OptionalArray loss, OptionalArray divisor) {
  Arrays arrays;
  CrossEntropyArgs args{};
  args.mode = static_cast<LossMode>(mode);
  args.type = element_type(logits);
  args.logits = arrays.add<void>(logits);
  args.count = logits.shape(0);
  args.classes = static_cast<int>(logits.shape(1));
  args.rows = bilinear(logits.shape(2), target.shape(1), align_corners);
  args.columns = bilinear(logits.shape(3), target.shape(2), align_corners);
  args.target = arrays.add<void>(target);
  args.target_is_uint8 = element_type(target) == ElementType::kUint8;
  args.ignore_index = ignore_index;
  args.confidence = arrays.add<float>(confidence);
  args.threshold = threshold;
  args.pixel_weight = arrays.add<float>(pixel_weight);
  args.class_weight = arrays.add<float>(class_weight);
  args.label_smoothing = label_smoothing;
  args.grad_output = arrays.add<float>(grad_output);
  args.log_sum = arrays.add<float>(log_sum);
  args.pixel_loss = arrays.add<float>(pixel_loss);
  args.gradient = arrays.add<void>(gradient);
  args.loss = arrays.add<float>(loss);
  args.normalize = static_cast<Normalize>(normalize);
  args.given_divisor = arrays.add<float>(given_divisor);
  args.divisor = arrays.add<float>(divisor);
  std::vector<LossTotals> totals(loss_blocks(args));
  arrays.add(totals);
  args.totals = totals.data();
  arrays.run([&] { return launch_upsample_cross_entropy(args, nullptr); });
}

py::dict take_counts() {
  py::dict result;
  result["bytes"] = 32 * (total.sectors_loaded + total.sectors_stored);
  result["loads"] = total.loads;
  result["stores"] = total.stores;
  result["specials"] = total.specials;
  result["blocks"] = total.blocks;
  total = {};
  return result;
}

std::vector<std::tuple<int, size_t, int64_t, int64_t>> take_launches() {
  std::vector<std::tuple<int, size_t, int64_t, int64_t>> result;
  for (const emulator::Launch& launch : emulator::take_launches()) {
    result.emplace_back(launch.threads, launch.dynamic_shared_bytes, launch.blocks, launch.kernel);
  }
  return result;
}

std::vector<std::tuple<int64_t, int64_t, std::string, int64_t>> take_profile() {
  const char* names[] = {"load", "store", "shared_load", "shared_store", "special", "barrier"};
  std::vector<std::tuple<int64_t, int64_t, std::string, int64_t>> result;
  for (const emulator::Site& site : emulator::take_profile()) {
    result.emplace_back(site.launch, site.offset, names[static_cast<int>(site.event)], site.amount);
  }
  return result;
}

void uniform(Array seeds, uint32_t stream, Array numbers) {
  Arrays arrays;
  const UniformArgs args{arrays.add<int64_t>(seeds), numbers.shape(0), numbers.shape(1), stream,
                         arrays.add<float>(numbers)};
  arrays.run([&] { return launch_uniform(args, nullptr); });
}

std::map<std::string, std::string> forms() {
  return {{"multiscale_pseudo_label", pseudo_label_form.load()}, {"upsample_cross_entropy", cross_entropy_form.load()}};
}

}  // namespace

PYBIND11_MODULE(maskmatch_emulator, module) {
  module.def(
      "take_launches", &take_launches,
      "Threads a block, bytes of dynamic shared memory, blocks and the kernel's offset in this module, a launch");
  module.def("patch_mask", &patch_mask);
  module.def("uniform", &uniform);
  module.def("multiscale_pseudo_label", &multiscale_pseudo_label);
  module.def("upsample_cross_entropy", &upsample_cross_entropy);
  module.def("profile", &emulator::profile, "Starts to count events by their places in this module");
  module.def(
      "take_profile", &take_profile,
      "Launch, offset in this module, event and amount since `profile`: bytes moved, calls of special functions, "
      "threads at barriers");
  module.def("set_thread_order", [](uint64_t order) { thread_order = order; }, "0: ascending, else a shuffle's seed");
  module.def("set_device", &emulator::set_device, py::arg("index"), py::arg("images") = 1,
             "An index into emulator.h's devices, and the images that share it");
  module.def("forms", &forms, "Which form of an operator ran last");
  module.def("take_counts", &take_counts,
             "What the kernels did since the last call: bytes of distinct 32-byte sectors a block, accesses of threads "
             "to global memory, exponentials and logarithms, thread blocks of the largest launch");
}
