// Runs a TensorRT engine of a baked bundle: camera frames in, a probability for each label out.
//
//     clip_frames ENGINE LABELS FRAME... [--bgr]
//
// ENGINE  engine.plan, as `clipdeploy build-engine` wrote it for a bundle that `clipdeploy bake --frame` made
// LABELS  a text a line, in the order that they were baked in
// FRAME   a .ppm picture (P6, 8 bits), or the raw bytes of a frame; --bgr where the engine was baked for bgr frames
//
// Needs TensorRT 10 or 11 and the CUDA runtime, and nothing of clipdeploy. The engine does the rest: resize, crop,
// normalisation, the image encoder, the comparison with the labels, and softmax or sigmoid.

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using Bytes = std::vector<std::uint8_t>;

void require(bool good, const std::string& complaint) {
    if (!good) throw std::runtime_error(complaint);
}

void require(cudaError_t status, const std::string& what) {
    require(status == cudaSuccess, what + ": " + cudaGetErrorString(status));
}

class Logger : public nvinfer1::ILogger {
    void log(Severity severity, const char* message) noexcept override {
        if (severity <= Severity::kWARNING) std::cerr << "TensorRT: " << message << '\n';
    }
};

struct FreeDevice {
    void operator()(void* memory) const noexcept { cudaFree(memory); }
};
using DeviceMemory = std::unique_ptr<void, FreeDevice>;

struct EndStream {
    void operator()(cudaStream_t stream) const noexcept { cudaStreamDestroy(stream); }
};
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, EndStream>;

Bytes readFile(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    require(file.is_open(), path + ": cannot be opened");
    return Bytes(std::istreambuf_iterator<char>(file), {});
}

std::vector<std::string> readLabels(const std::string& path) {
    std::ifstream file(path);
    require(file.is_open(), path + ": cannot be opened");
    std::vector<std::string> labels;
    for (std::string line; std::getline(file, line);) {
        if (!line.empty() && line.back() == '\r') line.pop_back();
        if (!line.empty()) labels.push_back(line);
    }
    return labels;
}

// An engine for one frame at a time, with its buffers on the GPU. For one thread; make one for each.
class BakedEngine {
public:
    explicit BakedEngine(const std::string& path) {
        cudaStream_t stream{};
        require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "the GPU cannot be used");
        stream_.reset(stream);
        const Bytes plan = readFile(path);
        runtime_.reset(nvinfer1::createInferRuntime(logger_));
        require(runtime_ != nullptr, "TensorRT does not start");
        engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
        require(engine_ != nullptr, path + ": no engine of this TensorRT version and GPU; build it on this machine");
        context_.reset(engine_->createExecutionContext());
        require(context_ != nullptr, path + ": the GPU has no memory for it");
        require(engine_->getTensorDataType("frame") == nvinfer1::DataType::kUINT8 &&
                    engine_->getTensorDataType("probabilities") == nvinfer1::DataType::kFLOAT,
                path + ": takes no uint8 `frame`, or gives no float `probabilities`; was it baked with --frame?");
        frame_ = engine_->getTensorShape("frame");  // (batch, H, W, 3), or (batch, H * 3 / 2, W) of nv12
        frame_.d[0] = 1;
        require(context_->setInputShape("frame", frame_), path + ": takes no batch of one frame");
        for (std::int32_t i = 0; i < engine_->getNbIOTensors(); ++i) bind(engine_->getIOTensorName(i));
        probabilities_.resize(volume(context_->getTensorShape("probabilities")));
    }

    std::int64_t height() const { return frame_.d[1]; }
    std::int64_t width() const { return frame_.d[2]; }
    std::size_t frameBytes() const { return volume(frame_); }
    std::size_t labels() const { return probabilities_.size(); }

    // The bytes of a frame -> a probability for each label, in the order of the labels.
    const std::vector<float>& run(const Bytes& frame) {
        require(frame.size() == frameBytes(), "a frame has " + std::to_string(frame.size()) +
                                                  " bytes, the engine takes " + std::to_string(frameBytes()));
        require(cudaMemcpyAsync(memory_.at("frame").get(), frame.data(), frame.size(), cudaMemcpyHostToDevice,
                                stream_.get()), "the frame cannot be copied to the GPU");
        require(context_->enqueueV3(stream_.get()), "the engine does not run");
        require(cudaMemcpyAsync(probabilities_.data(), memory_.at("probabilities").get(),
                                probabilities_.size() * sizeof(float), cudaMemcpyDeviceToHost, stream_.get()),
                "the answer cannot be copied from the GPU");
        require(cudaStreamSynchronize(stream_.get()), "the engine failed");
        return probabilities_;
    }

private:
    static std::size_t volume(const nvinfer1::Dims& shape) {
        return static_cast<std::size_t>(
            std::accumulate(shape.d, shape.d + shape.nbDims, std::int64_t{1}, std::multiplies<>()));
    }

    void bind(const char* name) {
        const bool wide = engine_->getTensorDataType(name) != nvinfer1::DataType::kUINT8;  // else float32
        const std::size_t bytes = volume(context_->getTensorShape(name)) * (wide ? sizeof(float) : 1);
        void* memory{};
        require(cudaMalloc(&memory, bytes), std::to_string(bytes) + " bytes on the GPU");
        memory_[name].reset(memory);
        require(context_->setTensorAddress(name, memory), std::string("no place for ") + name);
    }

    Logger logger_;  // members are destroyed from the last to the first: the context before its engine
    Stream stream_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::map<std::string, DeviceMemory> memory_;
    nvinfer1::Dims frame_{};
    std::vector<float> probabilities_;
};

// The pixels of a P6 picture of just this size, as bytes in the order R, G, B, or B, G, R.
Bytes readPpm(const std::string& path, std::int64_t width, std::int64_t height, bool bgr) {
    std::ifstream file(path, std::ios::binary);
    require(file.is_open(), path + ": cannot be opened");
    const auto next = [&file] {  // the next word of the header, past comments
        std::string word;
        while (file >> word && word.front() == '#') std::getline(file, word);
        return word;
    };
    require(next() == "P6", path + ": not a P6 picture");
    const std::string across = next(), down = next(), depth = next();
    require(across == std::to_string(width) && down == std::to_string(height) && depth == "255",
            path + ": has " + across + "x" + down + " pixels up to " + depth + ", the engine takes " +
                std::to_string(width) + "x" + std::to_string(height) + " up to 255");
    file.get();  // the one blank behind the header
    Bytes pixels(static_cast<std::size_t>(width * height) * 3);
    file.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(pixels.size()));
    require(static_cast<std::size_t>(file.gcount()) == pixels.size(), path + ": ends too early");
    for (std::size_t i = 0; bgr && i < pixels.size(); i += 3) std::swap(pixels[i], pixels[i + 2]);
    return pixels;
}

bool isPpm(const std::string& path) { return path.size() > 4 && path.compare(path.size() - 4, 4, ".ppm") == 0; }

void answer(BakedEngine& engine, const std::vector<std::string>& labels, const std::string& path, bool bgr) {
    const Bytes frame = isPpm(path) ? readPpm(path, engine.width(), engine.height(), bgr) : readFile(path);
    const auto begin = std::chrono::steady_clock::now();
    const std::vector<float>& chances = engine.run(frame);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    const auto best = std::max_element(chances.begin(), chances.end());
    const std::string& label = labels[static_cast<std::size_t>(best - chances.begin())];
    std::printf("%s: %s %.4f (%.2f ms)\n", path.c_str(), label.c_str(), *best, took.count());
}

}  // namespace

int main(int count, char** values) try {
    std::vector<std::string> words(values + 1, values + count);
    const auto kept = std::remove(words.begin(), words.end(), "--bgr");
    const bool bgr = kept != words.end();
    words.erase(kept, words.end());
    if (words.size() < 3) {
        std::cerr << "usage: clip_frames ENGINE LABELS FRAME... [--bgr]\n";
        return 2;
    }
    const std::vector<std::string> labels = readLabels(words[1]);
    BakedEngine engine(words[0]);
    require(labels.size() == engine.labels(), words[1] + ": has " + std::to_string(labels.size()) +
                                                  " labels, the engine " + std::to_string(engine.labels()));
    for (std::size_t i = 2; i < words.size(); ++i) answer(engine, labels, words[i], bgr);
    return 0;
} catch (const std::exception& error) {
    std::cerr << "clip_frames: " << error.what() << '\n';
    return 1;
}
