extension DeviceMemoryPlan {
    /// - Throws: `CUDAUnavailable.tooLittleMemory`.
    package func check(device: String) throws(CUDAUnavailable) {
        guard kvLimit >= kvBlockBytes, isResident || slotCount >= min(recordsPerToken, recordCount) else {
            throw .tooLittleMemory(device: device, needed: leastBytes, available: availableBytes)
        }
    }
}
