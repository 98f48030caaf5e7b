# Prints what the Vagrantfile here says for a provider, as JSON: `ruby dump.rb virtualbox`. The
# provider need not be installed, and nothing is started.
require "vagrant"
require "json"

# What a setting of Vagrant's holds, where that is plain data.
def plain(settings)
  settings.instance_variables.to_h { |name| [name.to_s.delete_prefix("@"), settings.instance_variable_get(name)] }
    .select { |_, value| [String, Integer, TrueClass, FalseClass, Array, Hash].include?(value.class) }
end

provider = ARGV.fetch(0).to_sym
vagrantfile = Vagrant::Environment.new(ui_class: Vagrant::UI::Silent).vagrantfile
machines = vagrantfile.machine_names.to_h do |name|
  config = vagrantfile.machine_config(name, provider, nil, nil, false)[:config]
  [name, {
    box: config.vm.box,
    hostname: config.vm.hostname,
    ports: config.vm.networks.map(&:last),
    folders: config.vm.synced_folders.reject { |_, options| options[:disabled] }.keys,
    provider: plain(config.vm.get_provider_config(provider)),
    provisioners: config.vm.provisioners.map { |provisioner| [provisioner.type, plain(provisioner.config)] },
  }]
end
puts JSON.generate(machines)
