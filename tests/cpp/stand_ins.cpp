// Bodies for the stand-in headers. Memory of the GPU is memory of the host, counted. An engine file is a line of text,
// `HEIGHT WIDTH`; the engine answers with the share of each of the three channels in a frame's sum.
//
// At the end it complains, and aborts, if anything was not given back or was used wrongly.

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

namespace {

int alive = 0;  // blocks, streams and objects that nobody has given back
std::map<std::string, void*> addresses;
nvinfer1::Dims frame{4, {-1, 0, 0, 3}};
std::int64_t batch = -1;

struct AtTheEnd {
    ~AtTheEnd() {
        if (alive == 0) return;
        std::fprintf(stderr, "stand-ins: %d not given back\n", alive);
        std::abort();
    }
} at_the_end;

template <typename Base>
struct Counted : Base {
    Counted() { ++alive; }
    ~Counted() noexcept override { --alive; }
};

}  // namespace

char const* cudaGetErrorString(cudaError_t error) { return error == cudaErrorNoDevice ? "no device" : "an error"; }
cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
    *memory = std::malloc(bytes);
    return ++alive, cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
    std::free(memory);
    return --alive, cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int) {
    if (std::getenv("NO_GPU") != nullptr) return cudaErrorNoDevice;
    *stream = static_cast<cudaStream_t>(std::malloc(1));
    return ++alive, cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    std::free(stream);
    return --alive, cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

namespace nvinfer1 {

IRuntime* createInferRuntime(ILogger& logger) noexcept {
    logger.log(ILogger::Severity::kINFO, "not shown");
    logger.log(ILogger::Severity::kWARNING, "a stand-in");
    return new Counted<IRuntime>;
}

ICudaEngine* IRuntime::deserializeCudaEngine(void const* blob, std::size_t size) noexcept {
    const std::string text(static_cast<char const*>(blob), size);
    long height = 0, width = 0;
    if (std::sscanf(text.c_str(), "%ld %ld", &height, &width) != 2) return nullptr;
    frame.d[1] = height;
    frame.d[2] = width;
    return new Counted<ICudaEngine>;
}

Dims ICudaEngine::getTensorShape(char const* name) const noexcept {
    return std::string(name) == "frame" ? frame : Dims{2, {-1, 3}};
}
DataType ICudaEngine::getTensorDataType(char const* name) const noexcept {
    return std::string(name) == "frame" ? DataType::kUINT8 : DataType::kFLOAT;
}
std::int32_t ICudaEngine::getNbIOTensors() const noexcept { return 3; }
char const* ICudaEngine::getIOTensorName(std::int32_t index) const noexcept {
    static char const* const names[] = {"frame", "probabilities", "logits"};
    return names[index];
}
IExecutionContext* ICudaEngine::createExecutionContext(ExecutionContextAllocationStrategy) noexcept {
    return new Counted<IExecutionContext>;
}

bool IExecutionContext::setInputShape(char const*, Dims const& dims) noexcept {
    batch = dims.d[0];
    return batch == 1 && dims.nbDims == 4 && dims.d[1] == frame.d[1] && dims.d[2] == frame.d[2] && dims.d[3] == 3;
}
Dims IExecutionContext::getTensorShape(char const* name) const noexcept {
    return std::string(name) == "frame" ? Dims{4, {batch, frame.d[1], frame.d[2], 3}} : Dims{2, {batch, 3}};
}
bool IExecutionContext::setTensorAddress(char const* name, void* data) noexcept {
    addresses[name] = data;
    return true;
}
bool IExecutionContext::enqueueV3(cudaStream_t) noexcept {
    if (addresses.size() != 3) return false;
    double sums[3] = {0, 0, 0};
    const auto* pixels = static_cast<unsigned char const*>(addresses["frame"]);
    for (std::int64_t i = 0; i < frame.d[1] * frame.d[2] * 3; ++i) sums[i % 3] += pixels[i];
    for (int i = 0; i < 3; ++i) {
        static_cast<float*>(addresses["probabilities"])[i] = float(sums[i] / (sums[0] + sums[1] + sums[2]));
        static_cast<float*>(addresses["logits"])[i] = float(sums[i]);
    }
    return true;
}

}  // namespace nvinfer1
