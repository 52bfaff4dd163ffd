import CCUDA

extension CUDABackend: MeasurableDevice {
    private static let rounds = 5

    package func measureDevice() throws -> DeviceMeasurement {
        do {
            try device.use()
            try stream.synchronize()
            // Far larger than any cache, where there is room.
            let size = max(1 << 20, min(1 << 30, try device.freeBytes() / 2)) / 4096 * 4096
            let memory = try DeviceMemory(device, byteCount: size)
            let threads = sigma_cuda_launch_peak(UInt32(device.multiprocessorCount))
            let sink = try DeviceMemory(
                device, byteCount: 4 * max(8 * device.multiprocessorCount, Int(threads.grid_x * threads.block)))
            try stream.fill(memory.address, with: 1, count: size)
            let reading = sigma_cuda_read(source: memory.address, sink: sink.address, byte_count: UInt64(size))
            let shape = sigma_cuda_launch_read(UInt32(device.multiprocessorCount))
            let readBandwidth = try rate(Double(size)) {
                try kernels.launch(kernels.read, shape, reading, in: stream)
            }
            let host = try PinnedMemory(device, byteCount: min(size, 64 << 20))
            host.base.initializeMemory(as: UInt8.self, repeating: 1, count: host.byteCount)
            let busBandwidth = try rate(Double(host.byteCount)) {
                try stream.copy(host.byteCount, from: host.base, to: memory.address)
            }
            return DeviceMeasurement(
                name: "\(device.name) (\(device.architecture))", readBandwidth: readBandwidth,
                busBandwidth: busBandwidth,
                int8Peak: try peak(kernels.peakInt8, sink, sigma_cuda_peak_int8_products()),
                fp32Peak: try peak(kernels.peakFP32, sink, sigma_cuda_peak_fp32_products()))
        } catch let status as CUDAStatus {
            throw device.failure(status, "measuring its speed")
        }
    }

    /// Multiply-adds per second of a kernel that does `products` per block and iteration.
    private func peak(_ kernel: CUDAKernels.Function, _ sink: DeviceMemory, _ products: UInt64) throws -> Double {
        let shape = sigma_cuda_launch_peak(UInt32(device.multiprocessorCount))
        func run(_ iterations: Int32) throws {
            try kernels.launch(
                kernel, shape, sigma_cuda_peak(sink: sink.address, iterations: iterations, padding: 0), in: stream)
        }
        // As many iterations as take longer than launching.
        var iterations: Int32 = 1
        while iterations < 1 << 16 {
            let start = monotonicTime()
            try run(iterations)
            try stream.synchronize()
            if monotonicTime() - start > 2e-3 { break }
            iterations *= 4
        }
        let total = Double(products) * Double(shape.grid_x) * Double(iterations)
        return try rate(total) { try run(iterations) }
    }

    /// `amount` per second, the median of some rounds after one that is not counted.
    private func rate(_ amount: Double, _ enqueue: () throws -> Void) throws -> Double {
        let start = try CUDAEvent(device, isTimed: true)
        let end = try CUDAEvent(device, isTimed: true)
        var rates: [Double] = []
        for round in 0...Self.rounds {
            try start.record(in: stream)
            try enqueue()
            try end.record(in: stream)
            try end.synchronize()
            if round > 0 { rates.append(amount / max(1e-9, try end.seconds(since: start))) }
        }
        return rates.sorted()[rates.count / 2]
    }
}
